"""What fits into a notification comes with it, and what is larger keeps its place."""

from __future__ import annotations

import json

import psycopg
import pytest

from pgfanout.envelope import NOTIFY_LIMIT
from tests.support.event_log import TENANT, Ear, envelope, numbers, publish, publish_many, rows


def text_of(size: int, character: str) -> str:
    """A text whose JSON has that many bytes."""
    width = len(character.encode())
    return character * ((size - 2) // width) + "x" * ((size - 2) % width)


@pytest.mark.parametrize("character", ["x", "é", "🎉"])
def test_a_small_payload_is_notified_and_a_large_one_is_not(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear, character: str
) -> None:
    sizes = [7_000, 7_500, NOTIFY_LIMIT, 20_000, 500_000]
    publish(writer, *(text_of(size, character) for size in sizes), type="order.created")
    writer.commit()
    expected = [envelope(row) for row in rows(reader)]
    for size, whole in zip(sizes, expected, strict=True):
        if size >= NOTIFY_LIMIT:
            del whole["payload"], whole["type"]
    assert ear.heard() == expected


@pytest.mark.parametrize("number", [None, 9223372036854770000])
@pytest.mark.parametrize(("channel", "type"), [("orders", ""), ('"' * 63, "\x01\x02" * 30), ("é" * 31, "é" * 30)])
def test_a_payload_of_any_size_is_notified_whole_or_not_at_all(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear, channel: str, type: str, number: int | None
) -> None:
    if number:
        writer.execute("SELECT setval('pgfanout.number', %s)", (number,))
    sizes = range(NOTIFY_LIMIT - 800, NOTIFY_LIMIT + 2, 7)
    for size in sizes:
        writer.execute(
            "SELECT pgfanout.publish(%s, %s, %s, %s)", (channel, TENANT, json.dumps(text_of(size, "x")), type)
        )
    writer.commit()
    texts = ear.texts()
    assert max(len(text.encode()) for text in texts) <= NOTIFY_LIMIT
    heard = [json.loads(text) for text in texts]
    notified = sum("payload" in event for event in heard)
    assert 0 < notified < len(sizes)
    expected = [envelope(row) for row in rows(reader)]
    for whole in expected[notified:]:
        del whole["payload"]
        whole.pop("type", None)
    assert heard == expected


def test_a_large_type_is_left_out_with_the_payload(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    publish(writer, "x" * 6_500, type="t" * 255)
    publish(writer, "x" * 6_500, type="t")
    writer.commit()
    (number, _, _, type, _), _ = rows(reader)
    assert type == "t" * 255
    first, second = ear.heard()
    assert first == {"channel": "orders", "tenant_id": str(TENANT), "id": str(number)}
    assert second["type"] == "t" and second["payload"] == "x" * 6_500


def test_a_large_event_keeps_its_place_among_others(
    writer: psycopg.Connection, reader: psycopg.Connection, ear: Ear
) -> None:
    publish(writer, 1, "x" * 10_000, 2)
    publish_many(writer, 3, "x" * 100_000, 4)
    writer.commit()
    heard = ear.heard()
    assert [event.get("payload", "large") for event in heard] == [1, "large", 2, 3, "large", 4]
    assert [int(event["id"]) for event in heard] == numbers(reader)
