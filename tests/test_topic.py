"""Topics: what a channel and a tenant may be."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfanout import topic as module
from pgfanout.errors import InvalidEventError
from pgfanout.topic import CHANNEL_LIMIT, Topic, check_channel, topics

TEXT = "7d0e1c4a-1111-4222-8333-abcdefabcdef"
TENANT = uuid.UUID(TEXT)
HEX = TENANT.hex


@pytest.mark.parametrize(
    "tenant",
    [TENANT, TEXT, TEXT.upper(), HEX, "{" + TEXT + "}", "{" + HEX + "}", "urn:uuid:" + TEXT, "urn:uuid:{" + TEXT + "}"],
    ids=str,
)
def test_every_usual_form_of_a_uuid_is_the_same_tenant(tenant: str | uuid.UUID) -> None:
    assert Topic.of("orders", tenant) == Topic("orders", TEXT)


@pytest.mark.parametrize(
    "tenant",
    [
        "",
        "orders",
        TEXT[:-1],
        TEXT + "0",
        HEX[:-1] + "g",
        TEXT + "\n",
        "0x" + HEX[2:],
        " " + HEX[2:] + " ",
        HEX[0] + "_" + HEX[2:],
        "+" + HEX[1:],
        HEX[:-1] + "１",
        "\ud800",
    ],
    ids=ascii,
)
def test_a_text_that_is_no_uuid_is_refused_with_the_text(tenant: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        Topic.of("orders", tenant)
    assert caught.value.field == "tenant"
    assert str(caught.value) == f"invalid tenant: {tenant!r} is not a UUID"


@pytest.mark.parametrize("tenant", [None, 42, TENANT.bytes], ids=["None", "int", "bytes"])
def test_a_tenant_of_another_type_is_refused_with_its_type(tenant: Any) -> None:
    with pytest.raises(InvalidEventError, match=f"a UUID is needed, not {type(tenant).__name__}$") as caught:
        Topic.of("orders", tenant)
    assert caught.value.field == "tenant"


def test_a_long_text_that_is_no_uuid_is_shown_in_part() -> None:
    with pytest.raises(InvalidEventError) as caught:
        Topic.of("orders", "x" * 100_000)
    assert len(str(caught.value)) < 200


@given(st.uuids(), st.uuids())
def test_two_tenants_never_share_a_topic(one: uuid.UUID, other: uuid.UUID) -> None:
    assert (Topic.of("orders", one.hex) == Topic.of("orders", str(other))) == (one == other)


@given(st.text())
def test_a_text_is_a_tenant_in_canonical_form_or_refused(text: str) -> None:
    try:
        tenant = Topic.of("orders", text).tenant
    except InvalidEventError as error:
        assert error.field == "tenant"
    else:
        assert tenant == str(uuid.UUID(tenant))


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


@pytest.mark.parametrize("tenant", [TEXT + "-" * 12, "urn:uuid:" + "-" * 7000 + TEXT, "x" * 7000], ids=len)
def test_a_tenant_that_is_written_at_length_is_refused_and_not_kept(tenant: str) -> None:
    kept = vars(module)["_tenant_from_text"].cache_info()
    with pytest.raises(InvalidEventError, match="is not a UUID"):
        Topic.of("orders", tenant)
    assert vars(module)["_tenant_from_text"].cache_info() == kept
