"""Topics: what a channel and a tenant may be."""

from __future__ import annotations

import enum
import re
import unicodedata
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfanout import topic as module
from pgfanout.errors import InvalidEventError
from pgfanout.topic import CHANNEL_LIMIT, TENANT_LIMIT, TenantId, Topic, as_text, check_channel, topics
from tests.support.tenants import tenants

TEXT = "7d0e1c4a-1111-4222-8333-abcdefabcdef"
TENANT = uuid.UUID(TEXT)
HEX = TENANT.hex


class Shop(str, enum.Enum):
    ACME = "acme"


@pytest.mark.parametrize(
    ("tenant", "text"),
    [
        (TENANT, TEXT),
        (TEXT, TEXT),
        (TEXT.upper(), TEXT),
        (TEXT.title(), TEXT),
        (None, "00000000-0000-0000-0000-000000000000"),
        (7, "7"),
        ("7", "7"),
        ("07", "07"),
        (0, "0"),
        (-7, "-7"),
        (10**63 - 1, "9" * 63),
        (-(10**62) + 1, "-" + "9" * 62),
        ("acme", "acme"),
        ("ACME", "ACME"),
        (Shop.ACME, "acme"),
        (" ", " "),
        ('it\'s "a\\b" %s', 'it\'s "a\\b" %s'),
        ("x" * 63, "x" * 63),
        ("ß" * 31, "ß" * 31),
        ("\u2028\U0001f600", "\u2028\U0001f600"),
    ],
    ids=ascii,
)
def test_a_tenant_has_one_text(tenant: TenantId, text: str) -> None:
    found = Topic.of("orders", tenant).tenant
    assert (type(found), found) == (str, text)


@pytest.mark.parametrize(
    "tenant",
    [HEX, "{" + TEXT + "}", TENANT.urn, TEXT + "0", TEXT[:-1] + "G", HEX[:-1] + "１", TEXT.replace("-", "_")],
    ids=ascii,
)
def test_a_text_that_is_nearly_a_uuid_is_text_like_any_other(tenant: str) -> None:
    assert Topic.of("orders", tenant.upper()) == Topic("orders", tenant.upper())


RULE = "it has to be a UUID, an int, text of 1 to 63 bytes of UTF-8 without control characters, or None"


@pytest.mark.parametrize(
    "tenant",
    ["", "x" * 64, "ß" * 32, "a\x00b", "a\nb", TEXT + "\n", "\x1f", "\x7f", "\x80", "\x9f", "\ud800", "\udc80" * 3],
    ids=ascii,
)
def test_a_text_that_breaks_the_rule_is_refused_with_text_and_rule(tenant: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        Topic.of("orders", tenant)
    assert caught.value.field == "tenant"
    assert str(caught.value) == f"invalid tenant: {RULE}, not {tenant!r}"


@pytest.mark.parametrize(
    "tenant",
    [True, False, 7.0, float("nan"), Decimal(7), TENANT.bytes, bytearray(b"7"), object, ("a", "b"), [7]],
    ids=repr,
)
def test_a_tenant_of_another_type_is_refused_with_its_type(tenant: Any) -> None:
    with pytest.raises(InvalidEventError) as caught:
        Topic.of("orders", tenant)
    assert caught.value.field == "tenant"
    assert str(caught.value) == f"invalid tenant: {RULE}, not {type(tenant).__name__}"


@pytest.mark.parametrize("tenant", [10**63, -(10**62), 10**5000], ids=lambda tenant: tenant.bit_length())
def test_an_int_of_more_than_63_characters_is_refused(tenant: int) -> None:
    with pytest.raises(InvalidEventError, match="not an int of so many digits"):
        Topic.of("orders", tenant)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(InvalidEventError) as caught:
        Topic.of("orders", "x" * 100_000)
    assert len(str(caught.value)) < 300


@given(tenants(), tenants())
def test_two_tenants_share_a_topic_only_if_they_have_one_text(one: TenantId, other: TenantId) -> None:
    def plain(tenant: TenantId) -> str:
        text = str(uuid.UUID(int=0) if tenant is None else tenant)
        return text.lower() if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text, re.I | re.A) else text

    assert (Topic.of("orders", one) == Topic.of("orders", other)) == (plain(one) == plain(other))
    assert Topic.of("orders", Topic.of("orders", one).tenant) == Topic.of("orders", one)


@given(st.text())
def test_a_text_that_is_taken_keeps_the_rule(text: str) -> None:
    try:
        tenant = Topic.of("orders", text).tenant
    except InvalidEventError as error:
        assert error.field == "tenant"
    else:
        assert 1 <= len(tenant.encode()) <= TENANT_LIMIT
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in tenant)
        assert tenant in (text, text.lower())


@pytest.mark.parametrize(
    "tenant", [TENANT.bytes, bytearray(b"7"), memoryview(b"7")], ids=lambda each: type(each).__name__
)
def test_bytes_are_no_list_of_ints(tenant: Any) -> None:
    with pytest.raises(InvalidEventError, match=f"not {type(tenant).__name__}$"):
        topics("orders", tenant)


def test_a_uuid_is_one_tenant_however_a_subclass_writes_it() -> None:
    class Upper(uuid.UUID):
        def __str__(self) -> str:
            return super().__str__().upper()

    assert Topic.of("orders", Upper(TEXT)) == Topic.of("orders", TENANT)


@pytest.mark.parametrize("channel", ["a", "orders", "x" * 63, "é" * 31, "Bestellungen für Öl", "a'b\"c", "\u2028", " "])
def test_a_channel_of_up_to_63_bytes_without_control_characters_is_taken_as_it_is(channel: str) -> None:
    assert check_channel(channel) == channel
    assert Topic.of(channel, TENANT).channel == channel


@pytest.mark.parametrize(
    ("channel", "problem"),
    [
        ("", "it is empty"),
        ("x" * 64, f"{'x' * 64!r} has 64 bytes of UTF-8, the limit is 63"),
        ("é" * 32, f"{'é' * 32!r} has 64 bytes of UTF-8, the limit is 63"),
        ("a\x00b", "'a\\x00b' has a control character"),
        ("a\nb", "'a\\nb' has a control character"),
        ("a\x1f", "'a\\x1f' has a control character"),
        ("\x7f", "'\\x7f' has a control character"),
        ("\x85", "'\\x85' has a control character"),
        ("\x9f", "'\\x9f' has a control character"),
        ("\ud800", "'\\ud800' is not valid Unicode"),
    ],
    ids=ascii,
)
def test_a_channel_that_breaks_a_rule_is_refused_with_value_and_rule(channel: str, problem: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        check_channel(channel)
    assert caught.value.field == "channel"
    assert str(caught.value) == f"invalid channel: {problem}"


@pytest.mark.parametrize("channel", [None, 1, b"orders"], ids=["None", "int", "bytes"])
def test_a_channel_of_another_type_is_refused_with_its_type(channel: Any) -> None:
    with pytest.raises(InvalidEventError, match=f"a str is needed, not {type(channel).__name__}$"):
        check_channel(channel)


def test_a_long_channel_is_shown_in_part() -> None:
    with pytest.raises(InvalidEventError, match="100000 bytes") as caught:
        check_channel("x" * 100_000)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_a_channel_that_is_taken_keeps_the_rule(channel: str) -> None:
    try:
        check_channel(channel)
    except InvalidEventError:
        return
    assert 1 <= len(channel.encode()) <= CHANNEL_LIMIT
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in channel)


def test_one_channel_is_one_topic() -> None:
    assert topics("orders", TENANT) == [Topic("orders", TEXT)]


def test_several_channels_are_a_topic_each_in_their_order() -> None:
    assert topics(iter(["stock", "orders"]), TENANT) == [Topic("stock", TEXT), Topic("orders", TEXT)]


def test_a_channel_that_is_named_twice_is_one_topic() -> None:
    assert topics(["orders", "stock", "orders"], TENANT) == [Topic("orders", TEXT), Topic("stock", TEXT)]


def test_no_channel_at_all_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="invalid channel: at least one is needed"):
        topics([], TENANT)


def test_one_wrong_channel_among_several_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="control character"):
        topics(["orders", "a\tb"], TENANT)


@pytest.mark.parametrize("several", [["acme", 7, TENANT], ("acme", "7", TEXT), iter(["acme", 7, "acme", TEXT])])
def test_several_tenants_are_each_channel_of_each_tenant(several: Any) -> None:
    wanted = [Topic(channel, tenant) for tenant in ("acme", "7", TEXT) for channel in ("orders", "stock")]
    assert topics(["orders", "stock"], several) == wanted


def test_a_set_of_tenants_is_several() -> None:
    assert set(topics("orders", {"acme", 7, None})) == {
        Topic.of("orders", "acme"),
        Topic.of("orders", 7),
        Topic.of("orders", None),
    }


def test_a_text_is_one_tenant_and_not_its_characters() -> None:
    assert topics("orders", "acme") == [Topic("orders", "acme")]


@pytest.mark.parametrize("none", [[], (), set(), iter([])], ids=lambda none: type(none).__name__)
def test_no_tenant_at_all_is_refused(none: Any) -> None:
    with pytest.raises(InvalidEventError, match="invalid tenant: at least one is needed"):
        topics("orders", none)


@pytest.mark.parametrize("wrong", [b"acme", bytearray(b"acme"), ["acme", ""], ["acme", ["7"]], [True], 7.5])
def test_one_wrong_tenant_among_several_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidEventError, match="invalid tenant: it has to be"):
        topics("orders", wrong)


def test_another_id_follows_the_same_rule_and_is_named() -> None:
    assert as_text(7, "user") == as_text("7", "user") == "7"
    with pytest.raises(InvalidEventError, match="invalid user: it has to be") as caught:
        as_text("", "user")
    assert caught.value.field == "user"


@pytest.mark.parametrize("tenant", [TEXT + "-" * 28, "x" * 7000], ids=len)
def test_a_tenant_that_is_written_at_length_is_refused_and_not_kept(tenant: str) -> None:
    kept = vars(module)["_as_text"].cache_info()
    with pytest.raises(InvalidEventError, match="it has to be a UUID"):
        Topic.of("orders", tenant)
    assert vars(module)["_as_text"].cache_info() == kept
