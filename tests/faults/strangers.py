"""Faults that strangers cause, who may connect to the database and nothing else, and services that know no log."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

from tests.support.wait import eventually

from .cause import Cause
from .fault import fault, hold
from .probe import Probe
from .publishers import foreign_envelope
from .record import Topic
from .topics import TENANTS, TOPICS
from .world import World

_GARBAGE = (
    "",
    "not json",
    "[]",
    "{}",
    "null",
    '{"channel": "orders"}',
    '{"channel": "orders", "tenant_id": "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11", "payload": 1, "type": "close"}',
    '{"channel": "orders", "tenant_id": "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11", "payload": 1, "type": "a\\nid: 1"}',
    "[" * 7999,
    '{"a":' * 1500,
    "x" * 7999,
    "\x01\x02",
)


_NOBODY = Topic("orders", "n\0body")


@fault("input")
def garbage(world: World, rng: random.Random) -> None:
    """Notifications that are no event; each may have been anyone's, but where a log has all of them."""
    topic = Topic("orders", TENANTS[0])
    with _told_each_second(world, "garbage", [topic] if world.history else None):
        for text in rng.choices(_GARBAGE, k=rng.randint(1, 30)):
            world.lose(topic, text)
            hold(rng, 0.05)


@fault("input")
def nobodys_events(world: World, rng: random.Random) -> None:
    """Events that nobody here can follow, which are no gap."""
    with Probe(world) as probe:
        for _ in range(rng.randint(1, 20)):
            channel, tenant = rng.choice((("x" * 64, probe.topic.tenant), ("ö" * 40, probe.topic.tenant), _NOBODY))
            world.notify(foreign_envelope(Topic(channel, tenant), "1"))
        if told := probe.refreshes():
            world.broken.append(f"needless: {told} refreshes for events that nobody here can follow")


@fault("input", history=True)
def past_the_log(world: World, rng: random.Random) -> None:
    """A service that notifies events of its own on topics that are followed: each of these is told to refresh, since
    nobody could say what of it was missed."""
    before, marks = _unlogged(world), world.session_marks()
    count, began = rng.randint(1, 40), monotonic()
    with Probe(world) as probe:
        topics = [*rng.sample(TOPICS, rng.randint(1, 3)), probe.topic]
        with world.telling("events past the log", topics) as cause:
            for topic in (probe.topic, *rng.choices(topics, k=count - 1)):
                _notify(world, topic, rng.choice(({}, {"id": "0190c1d2-aaaa"}, {"id": ""})))
                hold(rng, 0.05)
            _await_counted(world, before, marks, count)
        told, allowed = probe.refreshes([cause]), 2 + int(monotonic() - began)
    if told is not None and not 1 <= told <= allowed:
        world.broken.append(f"told {told} times of events past the log, where 1 to {allowed} times are right")


@fault("input", history=True)
def numbers_forged(world: World, rng: random.Random) -> None:
    """Events with numbers that are invented, or another's: they hide nothing, and nothing is known that came after
    such a number."""
    topics = rng.sample(TOPICS, rng.randint(1, 3))
    with world.telling("forged numbers", topics) as cause:
        for _ in range(rng.randint(1, 40)):
            number = _invented(world, rng)
            cause.numbers.add(number)
            _notify(world, rng.choice(topics), {"id": number})
            hold(rng, 0.05)


def _invented(world: World, rng: random.Random) -> str:
    with world.connect() as admin:
        last = world.last_number(admin)
        ((real,),) = admin.execute(
            "SELECT coalesce((SELECT number FROM pgfanout.event ORDER BY number DESC OFFSET 5 LIMIT 1), 0)"
        ).fetchall()
    ahead = rng.choice((1, 1_000, 300_000, 3_000_000, 3_600_000_000))
    return str(rng.choice((last + ahead, last + ahead, last - ahead, real, f"0{real}", f"{last}-1", -last, 10**18)))


def _notify(world: World, topic: Topic, fields: dict[str, str]) -> None:
    world.notify(foreign_envelope(topic, world.ledger.new_strange_payload(), **fields))


@contextmanager
def _told_each_second(world: World, what: str, topics: Iterable[Topic] | None) -> Iterator[Cause]:
    with Probe(world) as probe:
        began = monotonic()
        with world.telling(what, topics) as cause:
            yield cause
        told, allowed = probe.refreshes([cause]), 2 + int(monotonic() - began)
        if told is not None and told > allowed:
            world.broken.append(f"needless: {told} refreshes for {what}, where one a second is allowed, {allowed}")


def _unlogged(world: World) -> dict[str, int]:
    """How many events each hub has passed over since they are in no log."""
    return {name: getattr(hub.stats(), "unlogged", 0) for name, hub in world.hubs.items()}


def _await_counted(world: World, before: dict[str, int], marks: dict[str, object], count: int) -> None:
    def are_counted() -> bool:
        renewed, now = world.renewed(marks), _unlogged(world)
        return all(name in renewed or now[name] - before[name] >= count for name in now)

    try:
        eventually(are_counted, timeout=10.0)
    except AssertionError:
        world.broken.append(f"uncounted: of {count} events past the log, hubs count {_unlogged(world)} since {before}")
