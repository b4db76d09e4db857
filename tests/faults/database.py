"""Faults of the database, and what others send to it."""

from __future__ import annotations

import os
import random
import shlex
import signal
from contextlib import suppress
from time import monotonic

import psycopg

from tests.support.processes import session
from tests.support.wait import eventually

from .fault import fault, hold
from .processes import signal_workers, starting
from .world import World


@fault("database")
def listeners_terminated(world: World, rng: random.Random) -> None:
    with world.connect() as admin:
        for pid in rng.sample(listeners := world.listeners(), rng.randint(min(1, len(listeners)), len(listeners))):
            admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


@fault("database")
def server_killed(world: World, rng: random.Random) -> None:
    world.server.kill()
    hold(rng, 0.5)
    world.server.start()


@fault("database")
def server_restarted(world: World, rng: random.Random) -> None:
    world.server.stop(rng.choice(("fast", "immediate")))
    hold(rng, 0.5)
    world.server.start()


@fault("database")
def server_starting_up(world: World, rng: random.Random) -> None:
    """It recovers from an archive that keeps it waiting: 57P03."""
    gate = session.directory("gate") / "open"
    world.server.stop("immediate")
    wait = f"while [ ! -e {shlex.quote(str(gate))} ]; do sleep 0.02; done; false"
    world.server.settings.update({"restore_command": wait, "hot_standby": "off"})
    (world.server.data_directory / "recovery.signal").touch()
    world.server.launch()
    hold(rng, 1.0)
    gate.touch()
    eventually(lambda: not (world.server.data_directory / "recovery.signal").exists(), timeout=60.0)
    eventually(world.accepts, timeout=60.0)
    del world.server.settings["restore_command"], world.server.settings["hot_standby"]


@fault("database")
def away_at_start(world: World, rng: random.Random) -> None:
    """The server is away while a site's worker starts: ordinary requests are answered all the same."""
    name = rng.choice(sorted(world.sites))
    with starting(world, name):
        world.server.stop("fast")
        old = world.sites[name].worker_pids()
        signal_workers(world.sites[name], signal.SIGTERM)
        eventually(lambda: set(world.sites[name].worker_pids()) - set(old), timeout=60.0)
        ends = monotonic() + rng.uniform(0.3, 1.5)
        while monotonic() < ends:
            world.site_answers(name, within=2.0)
        world.server.start()


@fault("database")
def backends_frozen(world: World, rng: random.Random) -> None:
    listeners = world.listeners()
    frozen = rng.sample(listeners, rng.randint(min(1, len(listeners)), len(listeners)))
    for pid in frozen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    hold(rng, 2.0)
    for pid in frozen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@fault("database")
def out_of_connections(world: World, rng: random.Random) -> None:
    with world.sessions(100, lambda: psycopg.connect(world.app_url())):
        listeners_terminated(world, rng)
        # What has become free is taken before the hub comes back for it.
        with world.sessions(5, lambda: psycopg.connect(world.app_url())):
            hold(rng, 1.0)


@fault("database")
def password_changed(world: World, rng: random.Random) -> None:
    world.set_password("second")
    listeners_terminated(world, rng)
    hold(rng, 1.0)
    world.set_password("first")


@fault("database")
def queue_full(world: World, rng: random.Random) -> None:
    """A session that listens, in a transaction that it leaves open; others notify until none can any more."""
    if world.server.version < 17:
        return  # its queue is fixed at 8 GiB
    with world.connect(autocommit=False) as holder, world.connect() as flood:
        holder.execute("LISTEN nothing")
        holder.commit()
        holder.execute("SELECT 1")
        with suppress(psycopg.errors.ProgramLimitExceeded):
            for _ in range(rng.choice((3, 100))):
                flood.execute("SELECT pg_notify('elsewhere', n || repeat('x', 7000)) FROM generate_series(1, 10) n")
        hold(rng, 1.0)
        holder.rollback()
