"""The faults: what a schedule draws from. Each one does its harm, waits for a drawn while, and undoes what it can."""

from __future__ import annotations

import os
import random
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from pgfanout import PgFanoutError
from tests.support.processes import session
from tests.support.sse import EventSource
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually

from .oracle import Topic
from .world import GRACEFUL_TIMEOUT, THREADS, World

__all__ = ["FAULTS", "Fault"]

Run = Callable[[World, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """`where` is its track: faults of one track happen one after the other, those of two tracks at the same time."""

    name: str
    where: str
    run: Run


FAULTS: dict[str, Fault] = {}


def fault(where: str) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, where, run)
        return run

    return register


def _hold(rng: random.Random, longest: float) -> None:
    time.sleep(rng.uniform(0.0, longest))


# The database.


@fault("database")
def listeners_terminated(world: World, rng: random.Random) -> None:
    with world.connect() as admin:
        for pid in rng.sample(listeners := world.listeners(), rng.randint(min(1, len(listeners)), len(listeners))):
            admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


@fault("database")
def server_killed(world: World, rng: random.Random) -> None:
    world.server.kill()
    _hold(rng, 0.5)
    world.server.start()


@fault("database")
def server_restarted(world: World, rng: random.Random) -> None:
    world.server.stop(rng.choice(("fast", "immediate")))
    _hold(rng, 0.5)
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
    _hold(rng, 1.0)
    gate.touch()
    eventually(lambda: not (world.server.data_directory / "recovery.signal").exists(), timeout=60.0)
    eventually(world.accepts, timeout=60.0)
    del world.server.settings["restore_command"], world.server.settings["hot_standby"]


@fault("database")
def backends_frozen(world: World, rng: random.Random) -> None:
    listeners = world.listeners()
    frozen = rng.sample(listeners, rng.randint(min(1, len(listeners)), len(listeners)))
    for pid in frozen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    _hold(rng, 2.0)
    for pid in frozen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@fault("database")
def out_of_connections(world: World, rng: random.Random) -> None:
    with world.sessions(100, lambda: psycopg.connect(world.app_url())):
        listeners_terminated(world, rng)
        # What has become free is taken before the hub comes back for it.
        with world.sessions(5, lambda: psycopg.connect(world.app_url())):
            _hold(rng, 1.0)


@fault("database")
def password_changed(world: World, rng: random.Random) -> None:
    world.set_password("second")
    listeners_terminated(world, rng)
    _hold(rng, 1.0)
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
        _hold(rng, 1.0)
        holder.rollback()


# The network.


def _path(world: World, rng: random.Random) -> TcpProxy:
    return world.paths[rng.choice(sorted(world.paths))]


@fault("network")
def connections_cut(world: World, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        _path(world, rng).cut()
        _hold(rng, 0.3)


@fault("network")
def connections_stranded(world: World, rng: random.Random) -> None:
    """Nothing passes on them any more, and nobody says so."""
    _path(world, rng).strand()


@fault("network")
def network_frozen(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.freeze()
    _hold(rng, 2.5)
    path.heal()


@fault("network")
def network_slow(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.delay(rng.uniform(0.01, 0.2))
    _hold(rng, 1.5)
    path.heal()


@fault("network")
def network_dribbles(world: World, rng: random.Random) -> None:
    path = _path(world, rng)
    path.dribble(rng.choice((1, 7, 100)), rng.choice((0.0, 0.001)))
    _hold(rng, 1.0)
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
    """Bytes that are no UTF-8, within a notification between good ones."""
    for path in world.paths.values():
        path.corrupt(b'"key"', b'"\xff\xfey"', times=rng.randint(1, 5))
    _hold(rng, 0.5)
    for path in world.paths.values():
        path.heal()


# Input.

_GARBAGE = (
    "",
    "not json",
    "[]",
    "{}",
    "null",
    '{"channel": "orders"}',
    '{"channel": "orders", "tenant_id": "nobody", "payload": 1}',
    '{"channel": "orders", "tenant_id": "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11", "payload": 1, "type": "close"}',
    '{"channel": "orders", "tenant_id": "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11", "payload": 1, "type": "a\\nid: 1"}',
    "[" * 7999,
    '{"a":' * 1500,
    "x" * 7999,
    "\x01\x02",
)


@fault("input")
def garbage(world: World, rng: random.Random) -> None:
    for text in rng.choices(_GARBAGE, k=rng.randint(1, 30)):
        world.lose(Topic("orders", "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11"), text)
        _hold(rng, 0.02)


# Processes.


def _signal_workers(world: World, number: signal.Signals) -> None:
    for pid in world.site.worker_pids():
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _await_end(world: World, old: list[int]) -> None:
    """A worker that is told to stop is gone long before gunicorn's own limit, whatever streams it has."""
    began = time.monotonic()
    eventually(lambda: not set(world.site.worker_pids()) & set(old), timeout=60.0)
    world.stops.append(time.monotonic() - began)
    if world.stops[-1] > GRACEFUL_TIMEOUT / 2:
        world.broken.append(f"end: a worker was gone only after {world.stops[-1]:.1f} s")


def _await_new_worker(world: World) -> None:
    # One that is told to stop while it starts takes its time for that.
    eventually(world.inside, timeout=60.0)


@fault("process")
def workers_replaced(world: World, rng: random.Random) -> None:
    old = world.site.worker_pids()
    world.site.signal(signal.SIGHUP)
    # The master starts the new one first.
    eventually(lambda: set(world.site.worker_pids()) - set(old), timeout=60.0)
    _await_end(world, old)


@fault("process")
def worker_stopped(world: World, rng: random.Random) -> None:
    old = world.site.worker_pids()
    _signal_workers(world, rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)))
    _await_end(world, old)
    _await_new_worker(world)


@fault("process")
def worker_killed(world: World, rng: random.Random) -> None:
    world.cuts_allowed = True
    old = world.site.worker_pids()
    _signal_workers(world, signal.SIGKILL)
    eventually(lambda: set(world.site.worker_pids()) - set(old), timeout=60.0)


# Clients.


@fault("clients")
def crowd(world: World, rng: random.Random) -> None:
    """More streams than threads; ordinary requests are answered all the same."""
    url = f"{world.site.url}/events?tenant=7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11&channel=crowd"
    sources: list[EventSource] = []
    with ThreadPoolExecutor(16) as pool:
        opened = pool.map(lambda _: _open(url, timeout=3.0), range(2 * THREADS))
        sources += [source for source in opened if source is not None]
        try:
            world.site_answers()
            world.streams_leave_threads()
        finally:
            for source in sources:
                rng.choice((source.close, source.reset))()


@fault("clients")
def heads(world: World, rng: random.Random) -> None:
    world.head_requests(rng.randint(5, 50))
    world.refused_requests(rng.randint(1, 5))


@fault("clients")
def churn(world: World, rng: random.Random) -> None:
    """Subscriptions of a hub come and go, as do streams of the site."""
    hub = world.hubs[rng.choice(sorted(world.hubs))]
    url = f"{world.site.url}/events?tenant=7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11&channel=orders"
    for _ in range(rng.randint(50, 300)):
        with suppress(PgFanoutError):
            hub.subscribe(("orders", "stock"), "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11").close()
    for _ in range(rng.randint(1, 20)):
        if (source := _open(url)) is not None:
            rng.choice((source.close, source.reset))()


def _open(url: str, timeout: float = 15.0) -> EventSource | None:
    try:
        return EventSource(url, timeout=timeout)
    except (OSError, AssertionError):  # another fault has the site, or it has no thread
        return None


# The machine.


@fault("machine")
def starved(world: World, rng: random.Random) -> None:
    """Threads of this process that keep the interpreter busy."""
    with _burning(rng.randint(1, 4)):
        _hold(rng, 1.5)


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
