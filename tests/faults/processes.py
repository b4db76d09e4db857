"""Faults of the processes that serve, and of the machine below them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.support import processes
from tests.support.gunicorn import GunicornServer
from tests.support.wait import eventually

from .fault import fault, hold
from .world import GRACEFUL_TIMEOUT, World


def _site(world: World, rng: random.Random) -> str:
    return rng.choice(sorted(world.sites))


def signal_workers(site: GunicornServer, number: signal.Signals) -> None:
    for pid in site.worker_pids():
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _await_end(world: World, name: str, old: list[int]) -> None:
    """A worker that is told to stop is gone long before gunicorn's own limit, whatever streams it has."""
    began = time.monotonic()
    eventually(lambda: not set(world.sites[name].worker_pids()) & set(old), timeout=60.0)
    _note_stop(world, time.monotonic() - began)


def _note_stop(world: World, seconds: float) -> None:
    world.stops.append(seconds)
    if world.stops[-1] > GRACEFUL_TIMEOUT / 2:
        world.broken.append(f"end: a worker was gone only after {world.stops[-1]:.1f} s")


@contextmanager
def starting(world: World, name: str) -> Iterator[None]:
    """While a site's worker starts: streams that come before it listens begin with a refresh."""
    with world.restarting, world.telling("a worker that starts", paths=[name]):
        yield
        # One that is told to stop while it starts takes its time for that.
        eventually(lambda: world.inside(name), timeout=60.0)
        with suppress(AssertionError):  # another fault may have the server
            eventually(lambda: world.listens(name), timeout=10.0)


@fault("process")
def workers_replaced(world: World, rng: random.Random) -> None:
    name = _site(world, rng)
    with starting(world, name):
        old = world.sites[name].worker_pids()
        world.sites[name].signal(signal.SIGHUP)
        # The master starts the new one first.
        eventually(lambda: set(world.sites[name].worker_pids()) - set(old), timeout=60.0)
        _await_end(world, name, old)


@fault("process")
def worker_stopped(world: World, rng: random.Random) -> None:
    name = _site(world, rng)
    with starting(world, name):
        old = world.sites[name].worker_pids()
        signal_workers(world.sites[name], rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)))
        _await_end(world, name, old)


@fault("process")
def worker_killed(world: World, rng: random.Random) -> None:
    world.cuts_allowed = True
    name = _site(world, rng)
    with starting(world, name):
        old = world.sites[name].worker_pids()
        signal_workers(world.sites[name], signal.SIGKILL)
        eventually(lambda: set(world.sites[name].worker_pids()) - set(old), timeout=60.0)


@fault("process")
def master_killed(world: World, rng: random.Random) -> None:
    """As by the system when memory runs out. Nobody replaces its workers, so they are to end their streams and stop."""
    name = _site(world, rng)
    with starting(world, name):
        old = [psutil.Process(pid) for pid in world.sites[name].worker_pids()]
        world.sites[name].signal(signal.SIGKILL)
        began = time.monotonic()
        eventually(lambda: not any(processes.runs(worker) for worker in old), timeout=60.0)
        _note_stop(world, time.monotonic() - began)
        world.sites[name].wait(60.0)
        world.sites[name].start()


@fault("machine")
def starved(world: World, rng: random.Random) -> None:
    """Threads of this process that keep the interpreter busy."""
    with _burning(rng.randint(1, 4)):
        hold(rng, 1.5)


@contextmanager
def _burning(threads: int) -> Iterator[None]:
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    burners = [threading.Thread(target=burn, name="burner", daemon=True) for _ in range(threads)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        stop.set()
        for burner in burners:
            burner.join()
