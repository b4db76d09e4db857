"""Faults of the log: what was done to its tables, and to the clock that its numbers are from."""

from __future__ import annotations

import random

from psycopg import sql

from .fault import fault, hold
from .topics import TENANTS, TOPICS
from .world import World


@fault("log", history=True)
def log_truncated(world: World, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 2)):
        world.remove("TRUNCATE pgfanout.event")
        hold(rng, 0.5)


@fault("log", history=True)
def tenant_deleted(world: World, rng: random.Random) -> None:
    """One tenant's events, as a data protection request has it."""
    tenant = rng.choice(TENANTS)
    topics = [topic for topic in TOPICS if topic.tenant == tenant]
    world.remove(f"DELETE FROM pgfanout.event WHERE tenant::text = {sql.Literal(tenant).as_string(None)}", topics)


@fault("log", history=True)
def clock_ahead(world: World, rng: random.Random) -> None:
    """A clock that is ahead by a second, and is right again: until that is over, numbers go on from the last one."""
    hold(rng, 0.3)
    world.advance_numbers(1_000_000)
