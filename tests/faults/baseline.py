"""The baseline: what this process, the site's worker and the server hold when nobody follows anything."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

import psutil

from tests.support.wait import eventually

from .routes import reads_history, routes
from .world import THREADS, World

__all__ = ["Baseline", "differences"]

_SESSIONS = """
    SELECT application_name, count(*) FROM pg_stat_activity
    WHERE application_name LIKE 'pgfanout%' AND application_name <> 'pgfanout-history' GROUP BY 1
"""


@dataclass(frozen=True)
class Baseline:
    threads: dict[str, int]
    descriptors: int
    subscriptions: int
    routes: int
    sessions: dict[str, int]
    queue_is_empty: bool
    site_streams: int
    site_subscriptions: int
    site_routes: int

    @classmethod
    def measure(cls, world: World) -> Baseline:
        with world.connect() as admin:
            sessions = dict(admin.execute(_SESSIONS).fetchall())
            ((usage,),) = admin.execute("SELECT pg_notification_queue_usage()").fetchall()
        insides = [world.inside(name) for name in world.sites]
        # Each has a session to read its history with, but not always, and that has a watchdog and a second descriptor.
        reading = sum(reads_history(hub) for hub in world.hubs.values())
        threads = Counter(thread.name for thread in threading.enumerate())
        threads["pgfanout-watchdog"] -= reading
        return cls(
            threads=dict(threads),
            # A worker that was forked while its master was connecting holds that connection's client end until it
            # ends, and so the proxy holds two.
            descriptors=psutil.Process().num_fds()
            - 2 * (reading + sum(path.connections for path in world.paths.values())),
            subscriptions=sum(hub.stats().subscriptions for hub in world.hubs.values()),
            routes=sum(routes(hub) for hub in world.hubs.values()),
            sessions=sessions,
            queue_is_empty=usage < 0.1,  # of 64 pages a few stay behind until somebody notifies again
            site_streams=sum(inside["streams"] for inside in insides),
            site_subscriptions=sum(inside["subscriptions"] for inside in insides),
            site_routes=sum(inside["routes"] for inside in insides),
        )

    @classmethod
    def settled(cls, world: World) -> Baseline:
        """Measured until it repeats itself: right after a start, the session that proved it is still on its way out."""
        last = cls.measure(world)

        def repeats() -> bool:
            nonlocal last
            before, last = last, cls.measure(world)
            return last == before

        eventually(repeats, interval=0.5)
        return last


def differences(world: World, before: Baseline, timeout: float = 20.0) -> list[str]:
    """Wait until everything is as it was; a line for each thing that doesn't get there."""
    after = before

    def same() -> bool:
        nonlocal after
        after = Baseline.measure(world)
        return after == before

    try:
        eventually(same, timeout=timeout, interval=0.05)
    except AssertionError:
        return [
            f"left behind: {name} is {now!r} instead of {was!r}"
            for name, was in vars(before).items()
            if (now := getattr(after, name)) != was
        ] or ["left behind: the baseline could not be measured"]
    return [line for name in world.sites for line in _growth_of_a_site(world, name)]


def _growth_of_a_site(world: World, name: str) -> list[str]:
    """A worker may be new, and its threads begin as they are needed: these have limits instead."""
    inside = world.inside(name)
    lines = []
    if inside["all_threads"] > THREADS + 8:
        lines.append(f"left behind: the worker has {inside['all_threads']} threads")
    if inside["descriptors"] > 40 + THREADS:
        lines.append(f"left behind: the worker has {inside['descriptors']} descriptors")
    if unexpected := set(inside["kept_in_thread"]) - {"it is configured so"}:
        lines.append(f"detached: streams kept their threads because {', '.join(unexpected)}")
    return lines
