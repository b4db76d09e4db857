"""Faults by which one tenant is a burden to the others."""

from __future__ import annotations

import random
import uuid
from contextlib import suppress

import psycopg

from .fault import fault, hold
from .probe import Probe
from .world import MAX_REPLAY, World

_PART = 1_000  # events of a transaction, so that the notification queue of the test's server has room for it


@fault("input")
def bulk_import(world: World, rng: random.Random) -> None:
    """Thousands of events of one tenant, more than may be replayed, sometimes while hubs are away."""
    with Probe(world) as probe:
        away = rng.sample(sorted(world.paths), rng.choice((0, 2, len(world.paths))))
        for name in away:
            world.paths[name].refuse()
            world.paths[name].cut()
        try:
            _import(world, str(uuid.uuid4()))
            hold(rng, 0.3)
        finally:  # another track may have the server
            for name in away:
                world.paths[name].heal()
        if told := probe.refreshes():
            world.broken.append(f"needless: another tenant's import made a reader refresh {told} times")


def _import(world: World, tenant: str) -> None:
    hub = world.hubs["large"]
    for start in range(0, MAX_REPLAY + _PART, _PART):
        events = [("import", tenant, number) for number in range(start, start + _PART)]
        with suppress(psycopg.errors.ProgramLimitExceeded), world.connect() as connection:
            hub.publish_many(events, executor=connection)
