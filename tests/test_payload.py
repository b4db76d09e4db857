"""Payloads: which JSON comes of what `publish` is given, and what is refused."""

from __future__ import annotations

import datetime
import json
import re
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from pgfanout.envelope import decode, encode
from pgfanout.errors import InvalidEventError
from pgfanout.event import Event
from pgfanout.payload import payload_json
from tests.support.shown import everything_shown

TENANT = "7d0e1c4a-1111-4222-8333-abcdefabcdef"
SECRET = "s3cr3t-m4rk3r"


def test_a_payload_is_dumped_without_blanks_and_without_needless_escapes() -> None:
    assert payload_json({"a": [1, None], "é": "☃"}) == '{"a":[1,null],"é":"☃"}'.encode()


def test_bytes_are_taken_as_json_that_is_dumped_already() -> None:
    payload = b'{"a": 1}'
    assert payload_json(payload) is payload


def test_half_of_a_surrogate_pair_is_written_as_an_escape() -> None:
    payload = payload_json({"a": "\ud800", "é": 1})
    assert payload == b'{"a":"\\ud800","\\u00e9":1}'
    assert decode(encode(Event("orders", payload), TENANT))[1].json() == {"a": "\ud800", "é": 1}


def circle() -> list[Any]:
    inner: list[Any] = [SECRET]
    inner.append(inner)
    return inner


def nest(depth: int) -> list[Any]:
    inner: list[Any] = [SECRET]
    for _ in range(depth):
        inner = [inner]
    return inner


@dataclass
class Money:
    amount: Decimal


def plain(value: Any) -> Any:
    if isinstance(value, Money):
        return {"amount": value.amount}
    if isinstance(value, (Decimal, datetime.date, uuid.UUID)):
        return str(value)
    raise TypeError(f"the secret is {value}")


def test_values_that_json_does_not_have_are_converted() -> None:
    payload = {"at": datetime.date(2026, 12, 1), "price": [Money(Decimal("1.10"))], "id": uuid.UUID(int=7)}
    assert json.loads(payload_json(payload, plain)) == {
        "at": "2026-12-01",
        "price": [{"amount": "1.10"}],
        "id": str(uuid.UUID(int=7)),
    }
    assert payload_json({"a": "\ud800", "b": Decimal(1)}, plain) == b'{"a":"\\ud800","b":"1"}'


@pytest.mark.parametrize(
    ("default", "problem"),
    [
        (None, r"Decimal is not JSON serializable: convert it, or give the hub a json_default=\.\.\."),
        (
            lambda value: plain(str(value)),
            "Decimal is not JSON serializable: convert it, or have the hub's json_default do so",
        ),
        (lambda value: value, "Circular reference"),
    ],
)
def test_a_value_that_is_not_converted_is_named_by_its_type(default: Any, problem: str) -> None:
    with pytest.raises(InvalidEventError, match=problem) as caught:
        payload_json({"price": Decimal("2.50")}, default)
    assert "2.50" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"a": {SECRET}}, "set is not JSON serializable"),
        ({"a": bytearray(SECRET.encode())}, "bytearray is not JSON serializable"),
        ({(SECRET, 1): 2}, "not tuple"),
        ([SECRET, float("nan")], "not JSON compliant"),
        ([SECRET, float("-inf")], "not JSON compliant"),
        (circle(), "Circular reference"),
        (nest(100_000), "recursion|Stack overflow"),
        ([SECRET, 10**5000], "digits"),
    ],
    ids=["set", "bytearray", "tuple key", "NaN", "-Infinity", "circle", "nested", "huge"],
)
def test_a_payload_that_json_has_no_form_for_is_refused_and_not_shown(payload: Any, words: str) -> None:
    with pytest.raises(InvalidEventError, match="^invalid payload: not serialisable as JSON: ") as caught:
        payload_json(payload)
    assert re.search(words, str(caught.value))
    assert SECRET not in everything_shown(caught.value)
