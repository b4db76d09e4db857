"""One stream at full rate, against psycopg alone: scenario D."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

from .contender import Contender
from .helper import helper, output
from .measurement import Measurement, figures_of
from .options import Options
from .publisher import PAYLOAD_SIZE
from .scenario import BARE, FULL_RATE, PATIENCE, QUIET, Trouble
from .servers.topic import CHANNEL, POSTGRES_CHANNEL, TENANT
from .world import World

__all__ = ["full_rate"]

_CONTENDERS = ("detached", "threads", "asyncio")
_TRANSACTION = 1000

# PostgreSQL makes the envelopes itself: 32 characters for an id, and distinct ones.
_PUBLISH = f"""
SELECT pg_notify('{POSTGRES_CHANNEL}', '{{"channel":"{CHANNEL}","tenant_id":"{TENANT}","payload":{{"n":' || n
    || ',"t":1,"x":"{"x" * (PAYLOAD_SIZE - 20)}"}},"id":"' || md5(n::text) || '"}}')
FROM generate_series(%s::int, %s::int) AS n
"""


def full_rate(world: World, options: Options, contenders: list[Contender]) -> Iterator[Measurement]:
    if not options.wants("D"):
        return
    for round_ in range(1, options.rounds + 1):
        bare = Measurement(FULL_RATE, BARE, 1, round_, _TRANSACTION)
        yield _filled(bare, functools.partial(_bare, world, options.full_rate_events))
        for contender in contenders:
            if contender.name in _CONTENDERS:
                served = Measurement(FULL_RATE, contender.name, 1, round_, _TRANSACTION)
                fill = functools.partial(_served, world, contender, options.full_rate_events)
                yield _filled(served, fill)


def _filled(measurement: Measurement, fill: Callable[[Measurement], None]) -> Measurement:
    try:
        fill(measurement)
    except Trouble as error:
        measurement.problem = str(error)
    return measurement


def _served(world: World, contender: Contender, events: int, measurement: Measurement) -> None:
    """The server stands still while the events are published, so that the publishing takes nothing from it."""
    with world.run(contender, 1, 2 * events) as run:
        run.connect()
        time.sleep(QUIET / 2)

        def publish() -> None:
            run.server.pause()
            try:
                _publish(world, events)
            finally:
                run.server.go_on()

        window, cpu = run.window(publish, events, PATIENCE)
        took = (window.last_receipt - window.first_receipt) / 1e9
        figures = figures_of(window, rate=(window.delivered - 1) / took if took else 0.0, cpu=cpu)
        # The events carry no time of publishing.
        measurement.figures = {name: figures[name] for name in figures if name not in ("p50", "p99", "max")}
        measurement.problem = run.problem


def _bare(world: World, events: int, measurement: Measurement) -> None:
    """The same with psycopg alone, which drains them into nothing."""
    command = [sys.executable, "-m", "benchmarks.servers.bare", str(events)]
    env = {**os.environ, "DATABASE_URL": world.postgres.url()}
    with contextlib.ExitStack() as stack:
        with world.placement.server():
            listening = stack.enter_context(helper(command, env))
        assert listening.stdout is not None
        listening.stdout.readline()
        listening.send_signal(signal.SIGSTOP)
        _publish(world, events)
        listening.send_signal(signal.SIGCONT)
        count, seconds = map(float, output(listening, PATIENCE).split())
    measurement.figures = {"delivered": count, "rate": (count - 1) / seconds, "missing": events - count}


def _publish(world: World, events: int) -> None:
    with world.postgres.connect() as connection:
        for first in range(1, events + 1, _TRANSACTION):
            connection.execute(_PUBLISH, (first, min(events, first + _TRANSACTION - 1)))
