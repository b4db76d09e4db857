"""Event: checked when it is made, and unchanged from then on."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfanout.errors import InvalidEventError
from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event, check_json, check_label, check_type, keep_frame
from tests.support.shown import everything_shown

SECRET = "s3cr3t-m4rk3r"


def refusal(payload: Any) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as caught:
        Event("orders", payload)
    assert caught.value.field == "payload"
    return caught.value


def test_an_event_has_what_it_was_made_of() -> None:
    event = Event("orders", b'{"id": 42}', "order.created", "7")
    assert (event.channel, event.payload, event.type, event.id) == ("orders", b'{"id": 42}', "order.created", "7")


def test_type_and_id_are_empty_unless_given() -> None:
    event = Event("orders", b"{}")
    assert (event.type, event.id) == ("", "")


@pytest.mark.parametrize("payload", [b"null", b"true", b"-1.5e3", b'"x"', b"[]", b" \r\n{} ", '{"é": "☃"}'.encode()])
def test_any_json_value_is_a_payload_and_its_bytes_are_kept(payload: bytes) -> None:
    event = Event("orders", payload)
    assert event.payload is payload
    assert event.json() == json.loads(payload)


def test_json_numbers_of_any_length_are_payloads() -> None:
    check_json(b"9" * 100_000)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"", "not JSON at character 0: Expecting value"),
        (b"{", "not JSON at character 1: Expecting property name enclosed in double quotes"),
        (b"[1] 2", "not JSON at character 4: Extra data"),
        (b'"a\nb"', "not JSON at character 2: Invalid control character at"),
        (b'"\x00"', "not JSON at character 1: Invalid control character at"),
        (b"NaN", "not JSON: NaN is not a JSON value"),
        (b"[-Infinity]", "not JSON: -Infinity is not a JSON value"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    ],
    ids=["empty", "half", "two", "newline", "raw NUL", "NaN", "-Infinity", "latin", "surrogate", "nested"],
)
def test_bytes_that_are_no_json_are_refused_with_place_and_rule(payload: bytes, problem: str) -> None:
    assert str(refusal(payload)) == f"invalid payload: {problem}"


def test_a_byte_order_mark_is_no_json() -> None:
    assert "not JSON at character 0" in str(refusal(b"\xef\xbb\xbf{}"))


@pytest.mark.parametrize("payload", [rb'"\u0000"', rb'{"a\u0000": 1}', rb'"\\\u0000"', rb'["\\", "\\\\\u0000"]'])
def test_an_escaped_nul_is_refused(payload: bytes) -> None:
    assert "NUL" in str(refusal(payload))


@pytest.mark.parametrize("payload", [rb'"\\u0000"', rb'"a\\\\u0000"', rb'"\u0001\\u0000"'])
def test_a_text_that_only_looks_like_an_escaped_nul_is_taken(payload: bytes) -> None:
    assert "\x00" not in Event("orders", payload).json()


@given(st.text(st.sampled_from('\\u0"')))
def test_an_escaped_nul_is_refused_whatever_stands_before_it(text: str) -> None:
    harmless = json.dumps(text).encode()
    check_json(harmless)
    with pytest.raises(InvalidEventError, match="NUL"):
        check_json(harmless[:-1] + rb'\u0000"')


@pytest.mark.parametrize("payload", ["{}", bytearray(b"{}"), memoryview(b"{}"), None, {}])
def test_a_payload_that_is_not_bytes_is_refused_with_its_type(payload: Any) -> None:
    assert str(refusal(payload)) == f"invalid payload: bytes are needed, not {type(payload).__name__}"


@pytest.mark.parametrize(
    "form",
    ['{{"a": "{0}"', '"{0}\n"', '"{0}" "{0}"', '"{0}\\x"', '"{0}\\u0000"', '["{0}", NaN]', '{{"{0}": }}', "{0}"],
)
def test_no_part_of_a_refused_payload_is_shown(form: str) -> None:
    assert SECRET not in everything_shown(refusal(form.format(SECRET).encode()))


def test_no_part_of_a_payload_that_is_not_utf8_is_shown() -> None:
    assert SECRET not in everything_shown(refusal(SECRET.encode() + b"\xff"))


def test_no_part_of_a_payload_of_the_wrong_type_is_shown() -> None:
    assert SECRET not in everything_shown(refusal({"a": SECRET}))


@pytest.mark.parametrize("channel", ["", "a\nb", "x" * 64])
def test_an_event_refuses_an_impossible_channel(channel: str) -> None:
    with pytest.raises(InvalidEventError, match="invalid channel"):
        Event(channel, b"{}")


@pytest.mark.parametrize("kind", ["close", "refresh", "pgfanout.cursor", "pgfanout."])
def test_the_hubs_own_types_are_reserved(kind: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        Event("orders", b"{}", kind)
    assert caught.value.field == "type"
    assert str(caught.value) == f"invalid type: {kind!r} is reserved for the hub"


OTHER_TYPES = ["Close", "refreshed", "close ", "order.created", "öl ☃", "a: b", "a\u2028b", ""]
OTHER_TYPES += ["pgfanout", "Pgfanout.cursor", "x.pgfanout."]


@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_every_other_line_is_a_type(kind: str) -> None:
    assert check_type(kind) == kind
    assert Event("orders", b"{}", kind).type == kind


@pytest.mark.parametrize("field", ["type", "id"])
@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\n", "\x00", "x\ndata: forged"])
def test_line_ends_and_nul_are_refused_in_type_and_id(field: str, value: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        Event("orders", b"{}", **{field: value})
    assert caught.value.field == field
    assert str(caught.value) == f"invalid {field}: {value!r} has CR, LF or NUL"


@pytest.mark.parametrize("field", ["type", "id"])
def test_what_is_no_unicode_is_refused_in_type_and_id(field: str) -> None:
    with pytest.raises(InvalidEventError, match=f"invalid {field}: .* is not valid Unicode"):
        Event("orders", b"{}", **{field: "\udc00"})


@pytest.mark.parametrize("field", ["type", "id"])
def test_type_and_id_of_another_type_are_refused(field: str) -> None:
    arguments: dict[str, Any] = {field: 7}
    with pytest.raises(InvalidEventError, match=f"invalid {field}: a str is needed, not int"):
        Event("orders", b"{}", **arguments)


def test_a_long_label_is_shown_in_part() -> None:
    with pytest.raises(InvalidEventError) as caught:
        check_label("id", "x" * 10_000 + "\n")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["channel", "payload", "type", "id", "_frame"])
def test_an_event_does_not_change(name: str) -> None:
    event = Event("orders", b"{}", "t", "i")
    before = getattr(event, name)
    with pytest.raises(AttributeError, match=f"does not change: {name} can't be set"):
        setattr(event, name, "other")
    with pytest.raises(AttributeError, match=f"does not change: {name} can't be deleted"):
        delattr(event, name)
    assert getattr(event, name) == before


def test_an_event_takes_no_further_attributes() -> None:
    with pytest.raises(AttributeError):
        Event("orders", b"{}").colour = "red"


def test_events_of_equal_parts_are_equal_and_hash_alike() -> None:
    one, other = (Event("orders", b"{}", "t", "i") for _ in range(2))
    assert one == other
    assert len({one, other}) == 1


@pytest.mark.parametrize("other", [("stock", b"{}", "t", "i"), ("orders", b"[]", "t", "i"), ("orders", b"{}", "", "i")])
def test_events_that_differ_in_a_part_differ(other: tuple[str, bytes, str, str]) -> None:
    assert Event("orders", b"{}", "t", "i") != Event(*other)
    assert Event("orders", b"{}", "t", "i") != Event("orders", b"{}", "t", "j")


def test_an_event_is_not_equal_to_its_parts() -> None:
    assert Event("orders", b"{}") != ("orders", b"{}", "", "")


def test_a_frame_is_no_part_of_an_events_identity() -> None:
    one, other = (Event("orders", b"{}") for _ in range(2))
    keep_frame(one, b"data: {}\n\n")
    assert one == other
    assert hash(one) == hash(other)


def test_the_repr_shows_everything_but_the_payload() -> None:
    event = Event("orders", json.dumps(SECRET).encode(), "order.created", "7")
    assert repr(event) == f"<Event channel='orders' type='order.created' id='7' payload of {len(event.payload)} bytes>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))])
def test_a_copy_is_equal(duplicate: Any) -> None:
    event = Event("orders", b'{"a": 1}', "t", "i")
    assert duplicate(event) == event


@pytest.mark.parametrize(("event", "kind"), [(CLOSE_EVENT, "close"), (REFRESH_EVENT, "refresh")])
def test_control_events_belong_to_no_channel_and_say_nothing_but_their_type(event: Event, kind: str) -> None:
    assert (event.channel, event.json(), event.type, event.id) == ("", {}, kind, "")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))])
@pytest.mark.parametrize("event", [CLOSE_EVENT, REFRESH_EVENT], ids=["close", "refresh"])
def test_a_copy_of_a_control_event_is_the_same_object(event: Event, duplicate: Any) -> None:
    assert duplicate(event) is event
    assert duplicate([event])[0] is event


@pytest.mark.parametrize("kind", ["x" * 255, "é" * 127 + "x"], ids=len)
def test_a_type_has_255_bytes_at_most(kind: str) -> None:
    assert Event("orders", b"{}", kind).type == kind
    with pytest.raises(InvalidEventError) as caught:
        Event("orders", b"{}", kind + "x")
    assert caught.value.field == "type"
    assert "256 bytes of UTF-8, the limit is 255" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_an_integer_of_more_digits_than_python_converts_is_a_payload_that_json_raises_for() -> None:
    event = Event("orders", b"9" * 5000)
    with pytest.raises(ValueError, match="digits"):
        event.json()
