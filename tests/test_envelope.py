"""The NOTIFY envelope: what goes in comes out, and nothing that comes in does harm."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pgfanout import envelope as module
from pgfanout.envelope import (
    NOTIFY_LIMIT,
    MalformedEnvelopeError,
    UnroutableEnvelopeError,
    decode,
    encode,
    new_id,
)
from pgfanout.errors import PayloadTooLargeError
from pgfanout.event import Event
from pgfanout.payload import payload_json
from pgfanout.streams.sse import refusal
from pgfanout.topic import CHANNEL_LIMIT, TenantId, Topic
from tests.support.shown import everything_shown
from tests.support.tenants import tenants

TENANT = "7d0e1c4a-1111-4222-8333-abcdefabcdef"
SECRET = "s3cr3t-m4rk3r"

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)
channels = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=CHANNEL_LIMIT).filter(
    lambda channel: len(channel.encode()) <= CHANNEL_LIMIT
)
labels = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]))
types = labels.filter(
    lambda kind: kind not in ("close", "refresh") and not kind.startswith("pgfanout.") and len(kind.encode()) <= 255
)
ids = st.just("") | st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True)
blanks = st.text(st.sampled_from(" \t\r\n"), max_size=4)


def envelope(**changes: Any) -> str:
    fields = {"channel": "orders", "tenant_id": TENANT, "payload": {"id": 42}, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


def problem(text: str) -> str:
    with pytest.raises(MalformedEnvelopeError) as caught:
        decode(text)
    return str(caught.value)


def test_an_envelope_is_the_json_that_other_languages_read() -> None:
    text = encode(Event("orders", b'{"id": 42}', "order.created", "7"), TENANT)
    assert json.loads(text) == {
        "channel": "orders",
        "tenant_id": TENANT,
        "payload": {"id": 42},
        "type": "order.created",
        "id": "7",
    }


def test_an_empty_type_and_an_empty_id_are_left_out() -> None:
    assert list(json.loads(encode(Event("orders", b"{}"), TENANT))) == ["channel", "tenant_id", "payload"]


@given(channels, tenants(), values, types, ids)
@example("a\u2028b", uuid.UUID(TENANT), {"\u2028": "\U0001f600"}, "\u2029", "-_")
@example("orders", 'a"b\\"', 1, "", "7")
@example("orders", "\\u0041", 1, "order.created", "")
@example("orders", "größe\u2028\U0001f600", 1, "", "7")
def test_what_goes_in_comes_out(channel: str, tenant: TenantId, value: Any, kind: str, name: str) -> None:
    event = Event(channel, payload_json(value), kind, name)
    expected = Topic.of(channel, tenant)
    try:
        text = encode(event, expected.tenant)
    except PayloadTooLargeError:
        assume(False)
    assert json.loads(text)["tenant_id"] == expected.tenant
    topic, decoded = decode(text)
    assert (topic, decoded) == (expected, event)
    assert decoded.json() == value


@given(channels, values, st.sampled_from([None, 0, 1, "\t"]), st.booleans(), st.tuples(blanks, blanks), types, ids)
@example("orders", 1, None, False, (" ", ""), "", "")
@example("orders", 1, None, False, ("", "\n"), "order.created", "7")
@example('"', 1, None, False, (" ", " "), "\\", "_")
def test_the_bytes_of_a_payload_are_passed_through(
    channel: str,
    value: Any,
    indent: int | str | None,
    escaped: bool,
    around: tuple[str, str],
    kind: str,
    name: str,
) -> None:
    payload = json.dumps(value, indent=indent, ensure_ascii=escaped).join(around).encode()
    event = Event(channel, payload, kind, name)
    try:
        text = encode(event, TENANT)
    except PayloadTooLargeError:
        assume(False)
    assert decode(text)[1] == event


# Numbers and their spelling, names that occur twice, escapes that need not be, blanks.
EXACT = [b"1e400", b"0.10000000000000000000001", b"9" * 5000, b"1E+2", b"-0", b"1.0", b'{"a":1,"a":2}']
EXACT += [rb'"\u00e9\/\u003c"', '"é\u2028"'.encode(), b' {"a" : 1}\n', b"\r\n[1,\r2]\t", b" " + b"9" * 5000 + b" "]


@pytest.mark.parametrize("payload", EXACT)
def test_what_a_parser_would_write_in_another_way_is_left_as_it_is(payload: bytes) -> None:
    assert decode(encode(Event("orders", payload), TENANT))[1].payload == payload


def test_an_event_without_type_and_id_is_one_of_the_go_hub() -> None:
    text = f'{{"channel":"orders","tenant_id":"{TENANT.upper()}","payload":{{"id":42}}}}'
    assert decode(text) == (Topic("orders", TENANT), Event("orders", b'{"id":42}'))


def test_null_stands_for_no_type_and_no_id() -> None:
    assert decode(envelope(type=None, id=None))[1] == Event("orders", b'{"id": 42}')


def test_a_payload_may_be_null() -> None:
    assert decode(envelope(payload=None))[1].payload == b"null"


def test_unknown_fields_of_any_kind_are_ignored() -> None:
    assert decode(envelope(version=2, seq=[1, {"a": None}], note="x", payload="p"))[1] == Event("orders", b'"p"')


def test_blanks_between_the_tokens_mean_nothing() -> None:
    text = f' \r\n{{ \t"channel" : "orders" , "tenant_id"\n:\n"{TENANT}","payload":  [1, 2]  }}\t\n'
    assert decode(text) == (Topic("orders", TENANT), Event("orders", b"[1, 2]"))


def test_names_may_be_written_with_escapes() -> None:
    text = f'{{"ch\\u0061nnel":"\\u006frders","tenant_id":"{TENANT}","payload":0}}'
    assert decode(text) == (Topic("orders", TENANT), Event("orders", b"0"))


@pytest.mark.parametrize(
    "text",
    [" ", "{", "{}x", "}", "[]", "null", "1", '"x"', "hello", '{"a"}', '{"a":}', '{"a":1', '{"a":1,', '{"a":1,}']
    + ['{"a":1 "b":2}', "{a:1}", '{"a":NaN}', '{"a":-Infinity}', '{"a', '{"a":1}{}', "\ufeff{}", '{"a":01}', "{\x0b}"],
)
def test_what_is_no_json_object_is_malformed(text: str) -> None:
    assert problem(text) == "not a JSON object"


@pytest.mark.parametrize("name", ["channel", "tenant_id", "payload"])
def test_a_missing_field_is_named(name: str) -> None:
    assert problem(envelope(**{name: ...})) == f"{name} is missing or of the wrong kind"


def test_an_empty_object_is_malformed() -> None:
    assert problem("{ }") == "channel is missing or of the wrong kind"


@pytest.mark.parametrize("name", ["channel", "tenant_id", "type", "id"])
@pytest.mark.parametrize("value", [1, True, ["x"], {"x": 1}])
def test_a_field_of_the_wrong_kind_is_named(name: str, value: object) -> None:
    assert problem(envelope(**{name: value})) == f"{name} is missing or of the wrong kind"


@pytest.mark.parametrize("name", ["channel", "tenant_id"])
def test_null_is_neither_a_channel_nor_a_tenant(name: str) -> None:
    assert problem(envelope(**{name: None})) == f"{name} is missing or of the wrong kind"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("channel", {"channel": ""}),
        ("channel", {"channel": "x" * 64}),
        ("channel", {"channel": "a\nb"}),
        ("tenant", {"tenant_id": ""}),
        ("tenant", {"tenant_id": "x" * 64}),
        ("tenant", {"tenant_id": "a\nb"}),
        ("type", {"type": "close"}),
        ("type", {"type": "refresh"}),
        ("type", {"type": "pgfanout.cursor"}),
        ("type", {"type": "pgfanout."}),
        ("type", {"type": "a\nb"}),
        ("type", {"type": "x" * 256}),
        ("type", {"type": "\u00f6" * 128}),
    ],
)
def test_a_field_that_breaks_its_rule_is_named_and_not_shown(field: str, changes: dict[str, str]) -> None:
    assert problem(envelope(**changes)) == f"invalid {field}"


@pytest.mark.parametrize("form", [json.dumps, lambda value: json.dumps(value, separators=(",", ":"))])
@pytest.mark.parametrize("kind", ["close", "refresh", "pgfanout.cursor", "pgfanout."])
def test_nobody_can_forge_a_control_event(kind: str, form: Callable[[Any], str]) -> None:
    fields = {"channel": "orders", "tenant_id": TENANT, "payload": {}, "type": kind, "id": "7"}
    assert problem(form(fields)) == "invalid type"


def test_blanks_around_a_payload_are_the_envelopes_where_it_has_others_too() -> None:
    assert decode(json.dumps(json.loads(envelope(type="x"))))[1].payload == b'{"id": 42}'


@pytest.mark.parametrize("name", ["payload", "unknown"])
@pytest.mark.parametrize("depth", [1_000, 3_000, 100_000])
def test_deep_nesting_is_malformed_or_an_event_and_never_a_crash(name: str, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    text = envelope()[:-1] + f',"{name}":{nested}}}'
    try:
        decode(text)
    except MalformedEnvelopeError as error:
        assert str(error) == "nested too deeply"


def test_nesting_without_measure_is_malformed() -> None:
    assert problem('{"a":' * 100_000) == "nested too deeply"


def test_a_number_of_many_digits_is_malformed_as_a_channel() -> None:
    text = envelope(channel=...)[:-1] + ',"channel":' + "9" * 6000 + "}"
    # Which of the two depends on Python's own limit for the digits of an int.
    assert problem(text) in {"not a JSON object", "channel is missing or of the wrong kind"}


@given(st.text())
def test_arbitrary_text_is_an_event_or_malformed(text: str) -> None:
    decode_or_refuse(text)


@given(st.data(), values, types)
def test_a_damaged_envelope_is_an_event_or_malformed(data: st.DataObject, value: Any, kind: str) -> None:
    text = envelope(payload=value, type=kind)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    patch = data.draw(st.text(st.sampled_from('{}[]":,\\u0 \n\x00eE+-.tfnN9') | st.characters()))
    decode_or_refuse(text[:start] + patch + text[end:])


@given(st.dictionaries(st.sampled_from(["channel", "tenant_id", "payload", "type", "id", "x"]), values))
def test_an_object_of_arbitrary_fields_is_an_event_or_malformed(fields: dict[str, Any]) -> None:
    decode_or_refuse(json.dumps(fields))


@given(values)
def test_what_decodes_is_what_a_json_parser_reads(value: Any) -> None:
    topic, event = decode(envelope(payload=value, id="7"))
    assert (topic, event.json(), event.id) == (Topic("orders", TENANT), value, "7")


def decode_or_refuse(text: str) -> None:
    """Nothing but an event or the one error comes of it, and an event keeps every rule."""
    try:
        topic, event = decode(text)
    except MalformedEnvelopeError:
        return
    assert Topic.of(topic.channel, topic.tenant) == topic
    assert Event(topic.channel, b"{}", event.type, event.id).channel == event.channel
    json.loads(event.payload, parse_int=str)


@pytest.mark.parametrize("form", ["{0}", '{{"payload": "{0}"', '{{"payload":"{0}","channel":1}}', '{{"a":"{0}\n"}}'])
def test_nothing_of_a_malformed_text_is_shown(form: str) -> None:
    with pytest.raises(MalformedEnvelopeError) as caught:
        decode(form.format(SECRET))
    assert SECRET not in everything_shown(caught.value)


@pytest.mark.parametrize("name", ["channel", "tenant_id", "type"])
def test_nothing_of_an_invalid_field_is_shown(name: str) -> None:
    with pytest.raises(MalformedEnvelopeError) as caught:
        decode(envelope(**{name: SECRET * 9 + "\n"}))
    assert SECRET not in everything_shown(caught.value)


def filler(size: int, character: str = "x") -> Event:
    """An event whose envelope has so many bytes."""
    frame = len(encode(Event("orders", b'""'), TENANT))
    return Event("orders", f'"{character * ((size - frame) // len(character.encode()))}"'.encode())


def test_an_envelope_of_7999_bytes_is_possible() -> None:
    assert len(encode(filler(NOTIFY_LIMIT), TENANT)) == NOTIFY_LIMIT == 7999


def test_one_byte_more_is_refused_with_size_and_limit() -> None:
    with pytest.raises(PayloadTooLargeError) as caught:
        encode(filler(8000), TENANT)
    assert (caught.value.size, caught.value.limit) == (8000, 7999)


def test_the_limit_counts_bytes_and_not_characters() -> None:
    event = filler(9000, "☃")
    assert len(event.payload.decode()) < NOTIFY_LIMIT
    with pytest.raises(PayloadTooLargeError):
        encode(event, TENANT)


def test_type_and_id_count_too() -> None:
    event = filler(NOTIFY_LIMIT)
    with pytest.raises(PayloadTooLargeError):
        encode(Event(event.channel, event.payload, "t", "i"), TENANT)


def test_nothing_of_a_payload_that_is_too_large_is_shown() -> None:
    event = Event("orders", json.dumps(SECRET * 1000).encode())
    with pytest.raises(PayloadTooLargeError) as caught:
        encode(event, TENANT)
    assert SECRET not in everything_shown(caught.value)


def test_ids_differ_and_can_stand_in_an_event() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(Event("orders", b"{}", id=name).id == name for name in ids)


# What a text that is no event was about.


NOT_TEXT: list[Any] = [7, None, [], {}]
UNROUTABLE: list[dict[str, Any]] = [
    *({"channel": channel} for channel in ("", "x" * 64, "ü" * 32, "a\tb", *NOT_TEXT)),
    *({"tenant_id": tenant} for tenant in ("", "x" * 64, "a\n", "\x7f", *NOT_TEXT)),
]


@pytest.mark.parametrize("fields", UNROUTABLE, ids=str)
def test_a_topic_that_nobody_can_follow_is_told_apart(fields: dict[str, Any]) -> None:
    with pytest.raises(UnroutableEnvelopeError) as caught:
        decode(json.dumps({"channel": "orders", "tenant_id": TENANT, **fields, "payload": 1}))
    assert caught.value.topic is None


@pytest.mark.parametrize("payload", ["NaN", '{"a":', "[" * 7000])
def test_so_it_is_where_the_rest_can_not_be_read(payload: str) -> None:
    with pytest.raises(UnroutableEnvelopeError):
        decode(f'{{"channel":"{"x" * 64}","tenant_id":"{TENANT}","payload":{payload}' + "}")


@pytest.mark.parametrize(
    "rest",
    [
        '"payload":{"id":4',
        '"payload":NaN}',
        '"payload":' + "[" * 7000,
        '"payload":1,"type":"refresh"}',
        '"payload":1,"type":7}',
        '"payload":1,"id":7}',
        '"payload":1,"type":"%s"}' % ("x" * 256),
        '"payload":1' + ',"x":1' * 32 + "}",
        '"payload":1} and more',
        '"id":"7"}',
    ],
    ids=lambda rest: rest[:20],
)
def test_a_text_that_is_no_event_tells_its_topic_where_it_can_be_read(rest: str) -> None:
    with pytest.raises(MalformedEnvelopeError) as caught:
        decode(f'{{"channel":"orders","tenant_id":"{TENANT}",{rest}')
    assert caught.value.topic == Topic("orders", str(TENANT))
    assert not isinstance(caught.value, UnroutableEnvelopeError)


@pytest.mark.parametrize("text", ["", "hello", "{}", "[1]", '{"channel":"orders"}', '{"tenant_id":"7","payload":1}'])
def test_a_text_without_a_topic_tells_none(text: str) -> None:
    with pytest.raises(MalformedEnvelopeError) as caught:
        decode(text)
    assert caught.value.topic is None
    assert not isinstance(caught.value, UnroutableEnvelopeError)


# What strangers can make of it.


def test_an_empty_text_is_malformed_and_says_what_it_may_have_been() -> None:
    assert problem("") == "empty, not UTF-8, or dropped because too many notifications came at once"


def test_an_object_has_so_many_members_and_no_more() -> None:
    assert decode(envelope(**{f"m{number}": number for number in range(29)}))[1].payload == b'{"id": 42}'
    assert problem(envelope(**{f"m{number}": number for number in range(30)})) == "more than 32 members"


@pytest.mark.parametrize("member", ['"":0,', ' "" : 0 , ', '"channel":"orders",', '"\\u00":0,'], ids=str)
def test_a_text_of_many_members_costs_no_more_than_one_of_a_few(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, scan = [], vars(module)["_scan"]

    def count(text: str, at: int) -> tuple[object, int]:
        turns.append(at)
        result: tuple[object, int] = scan(text, at)
        return result

    monkeypatch.setattr(module, "_scan", count)
    head = f'{{"channel":"orders","tenant_id":"{TENANT}",'
    with pytest.raises(MalformedEnvelopeError):
        decode(head + member * (7800 // len(member)) + '"payload":1}')
    assert len(turns) <= 33


# The forms that take the short cut, and those that do not.
FORMS = [
    '{{"channel":"orders","tenant_id":"{tenant}","payload":1,"id":{name}}}',
    '{{"channel":"orders","tenant_id":"{tenant}","payload":1,"type":"t","id":{name}}}',
    '{{"id":{name},"channel":"orders","tenant_id":"{tenant}","payload":1}}',
]
ODD_IDS = ["a\x01b", "a\nb", "a\x00b", "\x7f", "a b", "x" * 65, "é", "٣", "²", "a.b", '"', "\udc00", "a\u2028b"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("name", ODD_IDS, ids=ascii)
def test_an_id_that_no_browser_could_send_back_is_left_out(form: str, escaped: bool, name: str) -> None:
    topic, event = decode(form.format(tenant=TENANT, name=json.dumps(name, ensure_ascii=escaped)))
    assert (topic.channel, event.payload, event.id) == ("orders", b"1", "")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["7", "x" * 64, "a-b_C", "7d0e1c4a" * 4, "9" * 18])
def test_an_id_of_the_form_that_hubs_make_is_kept_and_a_refusal_repeats_it(form: str, name: str) -> None:
    assert decode(form.format(tenant=TENANT, name=f'"{name}"'))[1].id == name
    assert f"id: {name}\n".encode() in refusal(1.0, name)


def test_no_cache_keeps_a_tenant_that_is_written_at_length() -> None:
    before = vars(module)["_topic"].cache_info().currsize
    long = "urn:uuid:" + "-" * 7000 + TENANT
    with pytest.raises(UnroutableEnvelopeError):
        decode(f'{{"channel":"orders","tenant_id":"{long}","payload":1}}')
    assert vars(module)["_topic"].cache_info().currsize == before
    assert long not in vars(module)["_last"][0]
