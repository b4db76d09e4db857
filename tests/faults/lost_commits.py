"""Faults that undo what was committed: the server goes on with data that are older."""

from __future__ import annotations

import random
from contextlib import suppress

from tests.support.replication import Copy
from tests.support.wait import eventually

from .fault import fault, hold
from .world import World

_AHEAD = (0, 0, 60_000_000)
"""Microseconds by which the clock of the server that is lost is ahead of the other's: more than a schedule lasts, since
a number that both have drawn is one event's to nobody."""


@fault("database")
def backup_restored(world: World, rng: random.Random) -> None:
    """The data directory as it was some moments ago is put back."""
    _lose_commits(world, rng, promoted=False)


@fault("database")
def standby_promoted(world: World, rng: random.Random) -> None:
    """A standby takes over that has not received the last commits."""
    _lose_commits(world, rng, promoted=True)


def _lose_commits(world: World, rng: random.Random, *, promoted: bool) -> None:
    # While numbers are ahead of the clock, both servers draw the same ones: they would be two events' and nobody could
    # tell which.
    eventually(world.clock_is_ahead_of_numbers, timeout=10.0)
    world.server.stop("fast")
    copy = Copy(world.server)
    blind = {name for name in world.paths if rng.random() < 0.3}
    for name in blind:
        world.paths[name].refuse()
        world.paths[name].cut()
    before = world.session_marks()
    world.server.start()
    if world.history:
        world.advance_numbers(rng.choice(_AHEAD))
    with suppress(AssertionError):  # another fault may have them
        eventually(lambda: all(world.listens(name) for name in world.paths.keys() - blind), timeout=3.0)
    hold(rng, 0.6)
    world.server.stop(rng.choice(("fast", "immediate")))
    seen = (world.paths.keys() - blind) | world.renewed(before)
    world.replace_data(copy, seen, promoted=promoted)
    hold(rng, 0.3)  # of writes before those come back that have seen nothing of it
    for name in blind:
        world.paths[name].heal()
