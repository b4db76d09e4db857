"""Tenants are walls: whatever is subscribed, published and closed, nobody sees an event of another tenant."""

from __future__ import annotations

import functools
import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, MemoryHub, NotifyHub, PostgresHub, Subscription, TenantId
from pgfanout.hub import core_of
from pgfanout.topic import as_text

from .routing import CHANNELS, SPELLINGS, TENANTS, check_received, drain

LONG = 30.0
BUFFER = 3
FENCE = "ffffffff-ffff-4fff-bfff-ffffffffffff"

tenants = st.sampled_from(TENANTS)
spellings = st.sampled_from(SPELLINGS)
channels = st.sampled_from(CHANNELS)

Spelling = Callable[[str], TenantId]


@dataclass(eq=False)
class Follower:
    """A subscription, and what it is owed."""

    subscription: Subscription
    tenants: frozenset[str]
    channels: frozenset[str]
    expected: list[tuple[str, int]] = field(default_factory=list)


class Routings(RuleBasedStateMachine):
    """Any order of subscribing, publishing, reading and closing, beside a model that compares tenants as texts."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = MemoryHub(buffer_size=BUFFER)
        self.fence = self.hub.subscribe("fence", FENCE)
        self.followers: list[Follower] = []
        self.published = 0

    @rule(tenant=tenants, spelling=spellings, names=st.sets(channels, min_size=1, max_size=4), alone=st.booleans())
    def subscribe(self, tenant: str, spelling: Spelling, names: set[str], alone: bool) -> None:
        wanted = sorted(names)[:1] if alone else sorted(names)
        subscription = self.hub.subscribe(wanted[0] if alone else wanted, spelling(tenant))
        self.followers.append(Follower(subscription, frozenset([tenant]), frozenset(wanted)))

    @rule(several=st.sets(tenants, min_size=1, max_size=4), spelling=spellings, names=st.sets(channels, min_size=1))
    def subscribe_to_several(self, several: set[str], spelling: Spelling, names: set[str]) -> None:
        subscription = self.hub.subscribe(names, map(spelling, several))
        self.followers.append(Follower(subscription, frozenset(several), frozenset(names)))

    @rule(channel=channels, tenant=tenants, spelling=spellings)
    def publish(self, channel: str, tenant: str, spelling: Spelling) -> None:
        self.hub.publish(channel, spelling(tenant), self.owe(channel, tenant))
        self.settle()

    @rule(data=st.data(), spelling=spellings, times=st.integers(1, 3 * BUFFER))
    def publish_to_someone(self, data: st.DataObject, spelling: Spelling, times: int) -> None:
        """So many events that some subscription overflows now and then."""
        if self.followers:
            follower = data.draw(st.sampled_from(self.followers))
            channel = data.draw(st.sampled_from(sorted(follower.channels)))
            tenant = data.draw(st.sampled_from(sorted(follower.tenants)))
            for _ in range(times):
                self.hub.publish(channel, spelling(tenant), self.owe(channel, tenant))
            self.settle()

    @rule(events=st.lists(st.tuples(channels, tenants, spellings), max_size=8))
    def publish_many(self, events: list[tuple[str, str, Spelling]]) -> None:
        self.hub.publish_many(
            [(channel, spelling(tenant), self.owe(channel, tenant)) for channel, tenant, spelling in events]
        )
        self.settle()

    @rule(channel=channels, tenant=tenants, other=tenants, spelling=spellings)
    def notify_as_another_program(self, channel: str, tenant: str, other: str, spelling: Spelling) -> None:
        """An envelope that names two tenants: the last one counts, as in every other JSON parser."""
        parts = [("tenant_id", other), ("channel", channel), ("tenant_id", as_text(spelling(tenant)))]
        parts.append(("payload", self.owe(channel, tenant)))  # type: ignore[arg-type]
        core_of(self.hub).backend.send(
            ["{" + ",".join(f'"{name}":{json.dumps(value)}' for name, value in parts) + "}"], None
        )
        self.settle()

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.followers:
            self.check(data.draw(st.sampled_from(self.followers)))

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.followers:
            follower = data.draw(st.sampled_from(self.followers))
            self.followers.remove(follower)
            self.check(follower)
            follower.subscription.close()
            assert follower.subscription.get(0) is CLOSE_EVENT

    @invariant()
    def everyone_who_has_not_left_is_counted(self) -> None:
        assert self.hub.stats().subscriptions == len(self.followers) + 1

    def teardown(self) -> None:
        with self.hub:
            for follower in self.followers:
                self.check(follower)

    def owe(self, channel: str, tenant: str) -> int:
        """The next event's number, which everyone who follows its topic is owed."""
        self.published += 1
        for follower in self.followers:
            if tenant in follower.tenants and channel in follower.channels:
                follower.expected.append((channel, self.published))
        return self.published

    def settle(self) -> None:
        """Wait until everything published so far was handed on: one thread does that, in order."""
        self.hub.publish("fence", FENCE, self.published)
        assert self.fence.get(LONG).json() == self.published

    def check(self, follower: Follower) -> None:
        check_received(drain(follower.subscription), follower.expected, BUFFER)
        follower.expected.clear()


TestRoutings = Routings.TestCase
TestRoutings.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def hub(request: pytest.FixtureRequest) -> Iterator[NotifyHub]:
    if request.param == "memory":
        with MemoryHub() as hub:
            yield hub
    else:
        with PostgresHub(request.getfixturevalue("database_url"), postgres_channel="walls") as hub:
            yield hub


def follow(hub: NotifyHub, seed: int, stop: threading.Event) -> int:
    """Come and go, and check each event's tenant and place; how many there were."""
    draw = random.Random(seed)
    seen = 0
    for _ in range(60):
        tenant, names = draw.choice(TENANTS), draw.sample(CHANNELS, draw.randint(1, 3))
        with hub.subscribe(names, draw.choice(SPELLINGS)(tenant)) as subscription:
            last: dict[str, int] = {}
            for _ in range(draw.randint(0, 6)):
                event = subscription.get(LONG)
                if event is REFRESH_EVENT:
                    last.clear()
                    continue
                content = event.json()
                assert content["tenant"] == tenant, "an event of another tenant"
                assert content["channel"] == event.channel in names, "an event of another channel"
                topic = f"{content['by']} {event.channel}"
                assert content["number"] == last.get(topic, content["number"] - 1) + 1, "a gap that nobody told"
                last[topic] = content["number"]
                seen += 1
        assert not stop.is_set()
    return seen


def publish(hub: NotifyHub, by: int, stop: threading.Event) -> None:
    """Publish to every tenant and channel in turn, numbered for each, until everyone has gone."""
    draw = random.Random(by)
    number = 0
    while not stop.is_set():
        number += 1
        topics = [(channel, tenant) for channel in CHANNELS for tenant in TENANTS]
        draw.shuffle(topics)
        hub.publish_many(
            (
                channel,
                draw.choice(SPELLINGS)(tenant),
                {"tenant": tenant, "channel": channel, "by": by, "number": number},
            )
            for channel, tenant in topics
        )


def test_nobody_sees_another_tenants_events_while_subscribers_come_and_go(hub: NotifyHub) -> None:
    hub.start(LONG)
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=8) as pool, ExitStack() as stack:
        stack.callback(stop.set)  # before the pool waits for its threads
        publishers = [pool.submit(publish, hub, by, stop) for by in range(2)]
        followers = [pool.submit(follow, hub, seed, stop) for seed in range(6)]
        assert all(follower.result(LONG * 2) for follower in followers)
        stop.set()
        assert [publisher.result(LONG) for publisher in publishers] == [None, None]
    assert hub.stats().subscriptions == 0


def test_postgres_routes_every_tenant_and_channel_to_its_own_subscription_alone(database_url: str) -> None:
    topics = [(channel, tenant) for channel in CHANNELS for tenant in TENANTS]
    with PostgresHub(database_url, postgres_channel="walls") as hub:
        subscriptions = [hub.subscribe(*topic) for topic in topics]
        spell = functools.partial(random.Random(1).choice, SPELLINGS)
        for round in range(3):
            hub.publish_many((channel, spell()(tenant), [channel, tenant, round]) for channel, tenant in topics)
        for (channel, tenant), subscription in zip(topics, subscriptions, strict=True):
            received = [subscription.get(LONG).json() for _ in range(3)]
            assert received == [[channel, tenant, round] for round in range(3)]
        hub.publish_many([(channel, FENCE, "nobody's") for channel in CHANNELS])
        fence = hub.subscribe("fence", FENCE)
        hub.publish("fence", FENCE, "last")
        assert fence.get(LONG).json() == "last"
        assert [drain(subscription) for subscription in subscriptions] == [[]] * len(topics)
