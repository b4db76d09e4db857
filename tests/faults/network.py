"""Faults of the network between a hub and its server."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext

from tests.support.tcp_proxy import TcpProxy

from .fault import fault, hold
from .world import World


def _path(world: World, rng: random.Random) -> TcpProxy:
    return world.paths[rng.choice(sorted(world.paths))]


@fault("network")
def connections_cut(world: World, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        _path(world, rng).cut()
        hold(rng, 0.3)


@fault("network")
def connections_stranded(world: World, rng: random.Random) -> None:
    """Nothing passes on them any more, and nobody says so."""
    _path(world, rng).strand()


@fault("network")
def network_frozen(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.freeze()
    hold(rng, 2.5)
    path.heal()


@fault("network")
def network_slow(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.delay(rng.uniform(0.01, 0.2))
    hold(rng, 1.5)
    path.heal()


@fault("network")
def network_dribbles(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.dribble(rng.choice((1, 7, 100)), rng.choice((0.0, 0.001)))
    hold(rng, 1.0)
    path.heal()


@fault("network")
def connections_refused(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.refuse()
    path.cut()
    # The pauses grow while nobody answers, and must not grow beyond their limit.
    time.sleep(rng.choice((0.0, 0.3, 1.0, 6.0)))
    path.heal()


@fault("network")
def bytes_corrupted(world: World, rng: random.Random) -> None:
    """Bytes that are no UTF-8, within a notification between good ones: nothing else has the name of the field.
    Where there is a log, that has what was in it. Otherwise it may have been anyone's event."""
    with nullcontext() if world.history else world.telling("corrupted bytes"):
        for path in world.paths.values():
            path.corrupt(b'"tenant_id"', b'"\xff\xfenant_id"', times=rng.randint(1, 5))
        hold(rng, 0.5)
        for path in world.paths.values():
            path.heal()
