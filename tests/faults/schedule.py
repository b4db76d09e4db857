"""A schedule: publishers, subscribers and faults drawn from a seed, and what came of them."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic

import psycopg

from tests.support.wait import eventually

from .baseline import Baseline, differences
from .browsers import StreamSubscriber
from .faults import FAULTS, Fault, drawable
from .ledger import Ledger
from .publishers import Publisher
from .readings import Readings
from .record import Topic
from .subscribers import FENCE, HubSubscriber, Subscriber
from .topics import CHANNELS, TENANTS, TOPICS
from .world import SITE, World

__all__ = ["Outcome", "Schedule"]

_TEMPERS = ("steady", "steady", "steady", "slow", "slow", "stalling", "stalling", "leaving", "leaving", "stalled")
_RECOVERY_LIMIT = 30.0


@dataclass
class Outcome:
    """What one schedule came to. `broken` has a line for each promise that was not kept."""

    committed: int = 0
    deliveries: int = 0
    told: int = 0
    needless: int = 0
    silent: int = 0
    duplicates: int = 0
    readings: Readings = field(default_factory=Readings)
    hubs_recovery: float = 0.0
    site_recovery: float = 0.0
    worker_ends: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


class Schedule:
    """Number `index` of a seed. The same two numbers draw the same schedule; what threads and servers make of it in
    time is theirs."""

    def __init__(
        self, seed: int, index: int, only: Sequence[str] = (), exactly: Sequence[str] = (), *, history: bool = False
    ) -> None:
        """Draws from all faults that there are with history, or without, or from some `only`, unless it is told them
        `exactly`."""
        self.name = f"{seed}/{index}"
        self._random = random.Random(self.name)
        drawn = exactly or self._random.choices(
            sorted(only) or drawable(history), k=self._random.choice((1, 1, 2, 2, 3, 4))
        )
        self.faults = sorted((FAULTS[name] for name in drawn), key=lambda fault: fault.where)
        self._publishers = self._random.randint(2, 4)
        self._followers = self._random.randint(16, 32)
        self._streams = {"never": self._random.randint(6, 12), "auto": self._random.randint(8, 24)}

    def run(self, world: World, baseline: Baseline) -> Outcome:
        """Play it and judge it; afterwards everything has to be at its baseline again."""
        outcome = Outcome(faults=Counter(fault.name for fault in self.faults))
        ledger = Ledger()
        world.begin(ledger)
        subscribers = self._subscribers(world)
        before = Readings.of(world)
        try:
            self._play(world, ledger, subscribers, outcome)
            outcome.readings = Readings.of(world).since(before)
        finally:
            world.heal()
            for subscriber in subscribers:
                subscriber.stop()
            for subscriber in subscribers:
                subscriber.join()
        self._judge(world, ledger, subscribers, outcome)
        outcome.broken += differences(world, baseline)
        return outcome

    def _subscribers(self, world: World) -> list[Subscriber]:
        subscribers: list[Subscriber] = []
        for name, hub in world.hubs.items():
            for number in range(self._followers):
                draw = self._draw(f"{name} {number}")
                subscribers.append(HubSubscriber(*draw, hub, name))
        for detach, count in self._streams.items():
            for number in range(count):
                draw = self._draw(f"{SITE} detach={detach} {number}")
                urls = {name: world.sites[name].url for name in self._random.choice(_places(world))}
                subscribers.append(StreamSubscriber(*draw, urls, detach, lambda: world.cuts_allowed, world.hubs))
        return subscribers

    def _draw(self, name: str) -> tuple[str, list[Topic], str, str]:
        tenants = self._random.sample(TENANTS, self._random.choice((1, 1, 1, 2)))
        channels = self._random.sample(CHANNELS, self._random.choice((1, 1, 2, 3)))
        # Who asks for a channel twice has it once.
        twice = channels[: self._random.choice((0, 0, 1))]
        topics = [Topic(channel, tenant) for tenant in tenants for channel in channels + twice]
        return name, topics, self._random.choice(_TEMPERS), f"{self.name}/{name}"

    def _play(self, world: World, ledger: Ledger, subscribers: list[Subscriber], outcome: Outcome) -> None:
        for subscriber in subscribers:
            subscriber.start()
        for subscriber in subscribers:
            if not subscriber.begun.wait(_RECOVERY_LIMIT):
                outcome.broken.append(f"{subscriber.name} did not begin")
        hub = next(iter(world.hubs.values()))
        publishers = [
            Publisher(
                f"{self.name}/publisher {number}",
                hub,
                ledger,
                TOPICS,
                world.connect_publisher,
                world.hub_of,
                history=world.history,
            )
            for number in range(self._publishers)
        ]
        for publisher in publishers:
            publisher.start()
        try:
            self._harm(world, outcome)
            world.heal()
            healed = monotonic()
            time.sleep(0.2)  # of traffic in peace
        finally:
            for publisher in publishers:
                publisher.stop()
            for publisher in publishers:
                publisher.join()
                outcome.broken += publisher.failures
        self._await_all(world, ledger, subscribers, outcome, healed)

    def _harm(self, world: World, outcome: Outcome) -> None:
        """Each track in a thread of its own."""
        threads = [
            threading.Thread(target=self._track, args=(world, list(faults), outcome, f"{self.name}/{where}"))
            for where, faults in groupby(self.faults, key=lambda fault: fault.where)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _track(self, world: World, faults: list[Fault], outcome: Outcome, seed: str) -> None:
        rng = random.Random(seed)
        for fault in faults:
            time.sleep(rng.uniform(0.0, 0.4))
            try:
                fault.run(world, rng)
            except psycopg.OperationalError:
                pass  # another track has the server
            except Exception as error:
                outcome.broken.append(f"the fault {fault.name} failed: {error!r}")

    def _await_all(
        self, world: World, ledger: Ledger, subscribers: list[Subscriber], outcome: Outcome, healed: float
    ) -> None:
        """Publish last events until everyone has one of each of its topics: first those that nothing holds up but
        the readers that stalled, then these as well."""
        stalled = [subscriber for subscriber in subscribers if subscriber.temper == "stalled"]
        others = [subscriber for subscriber in subscribers if subscriber.temper != "stalled"]
        for group in (others, stalled):
            for subscriber in group:
                subscriber.settle()
            self._await(world, ledger, group, outcome)
        first = {
            place: min((s.live_at for s in others if s.name.startswith(place)), default=healed) - healed
            for place in (*world.hubs, SITE)
        }
        outcome.site_recovery = first.pop(SITE)
        outcome.hubs_recovery = max(first.values())

    def _await(self, world: World, ledger: Ledger, subscribers: list[Subscriber], outcome: Outcome) -> None:
        def all_live() -> bool:
            world.publish_all(ledger, [(topic, FENCE, {"fence": list(topic)}) for topic in TOPICS])
            return all(subscriber.done.wait(0.05) for subscriber in subscribers)

        try:
            eventually(all_live, timeout=_RECOVERY_LIMIT, interval=0.05)
        except AssertionError:
            late = [subscriber.name for subscriber in subscribers if not subscriber.done.is_set()]
            outcome.broken.append(f"not live {_RECOVERY_LIMIT:g} s after the last fault: {', '.join(late)}")

    def _judge(self, world: World, ledger: Ledger, subscribers: list[Subscriber], outcome: Outcome) -> None:
        oracle = world.oracle(ledger)
        check = oracle.check(record for subscriber in subscribers for record in subscriber.records)
        outcome.committed = oracle.size
        outcome.deliveries, outcome.told, outcome.silent = check.events, check.told, check.silent
        outcome.needless, outcome.duplicates = check.needless, check.kinds["duplicate"]
        outcome.worker_ends = list(world.stops)
        outcome.broken += world.broken + check.broken
        outcome.broken += [f"{s.name} failed: {s.error!r}" for s in subscribers if s.error is not None]


def _places(world: World) -> list[list[str]]:
    """Where a browser may go: to one site, or now to this and now to that."""
    return [*([name] for name in sorted(world.sites)), sorted(world.sites)]
