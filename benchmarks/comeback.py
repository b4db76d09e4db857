"""A thousand browsers that come back at once, and what those who were there notice of it: scenario I."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from pgfanout import PostgresHub
from tests.support.ports import free_port

from .contender import CONTENDERS, Launch
from .helper import helper, output
from .measurement import Measurement
from .options import Options
from .percentile import percentile
from .publisher import Publisher
from .scenario import COMEBACK, HISTORY, NEWCOMERS, PATIENCE, Trouble
from .sender import PostgresSender
from .server import Server
from .world import World

__all__ = ["MISSED", "comeback"]

MISSED = 500
"""Events that those who come back have not seen."""

_THERE = 100
_RATE = 20.0
_BEFORE, _AFTER = 3.0, 6.0
_SETTLE = 1.0

_SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND application_name IN ('pgfanout-listener', 'pgfanout-history', 'pgfanout-probe')
"""


def comeback(world: World, options: Options) -> Iterator[Measurement]:
    """Those who come back have missed events; newcomers, as many, have not, and show what a crowd costs by itself."""
    if not options.wants("I"):
        return
    for round_ in range(1, options.crowd_rounds + 1):
        for name in (HISTORY, NEWCOMERS):
            measurement = Measurement(COMEBACK, name, options.crowd, round_, unit="browsers")
            try:
                measurement.figures = _round(world, options.crowd, MISSED if name == HISTORY else 0)
            except (*Trouble, psycopg.Error) as error:
                measurement.problem = str(error)
            yield measurement


def _round(world: World, crowd: int, missed: int) -> dict[str, float]:
    database = f"comeback_{time.monotonic_ns()}"
    url = world.postgres.create_database(database)
    with PostgresHub(url, history=True) as hub:
        hub.install_history()
        with _server(world, url, crowd) as server:
            return _Scene(hub, server.port, url).play(crowd, missed)


def _server(world: World, url: str, crowd: int) -> Server:
    port = free_port()
    launch = Launch(
        port=port,
        streams=crowd,
        buffer_size=32,
        database_url=url,
        redis_url="",
        floor=world.floor,
        datagrams=world.floor,
    )
    contender = CONTENDERS["detached"]
    env = {**contender.env(launch), "PGFANOUT_HISTORY": "true"}
    return Server(contender.command(launch), port=port, env=env, probe=contender.probe, placement=world.placement)


class _Scene:
    """One server, its publisher, those who are there and those who come."""

    def __init__(self, hub: PostgresHub, port: int, url: str) -> None:
        self._port = port
        self._url = url
        self._publisher = Publisher(PostgresSender(hub))
        self._over = threading.Event()

    def play(self, crowd: int, missed: int) -> dict[str, float]:
        cursor = self._miss(missed)
        with self._crowd(_THERE, 0, _SETTLE + _BEFORE + _AFTER) as there:
            time.sleep(_SETTLE)
            with self._publishing():
                time.sleep(_BEFORE)
                with self._crowd(crowd, cursor, 0.0) as coming:
                    came = json.loads(output(coming, PATIENCE))
                sessions = self._ask(_SESSIONS)
                seen = json.loads(output(there, PATIENCE))
        return _figures(came, seen, sessions)

    def _miss(self, missed: int) -> int:
        """Publish what the crowd has not seen; the id of the last that it has."""
        self._publisher.one(0)
        cursor = self._ask("SELECT max(number) FROM pgfanout.event")
        self._publisher.burst(missed // 50, 50)
        return cursor

    def _crowd(self, count: int, cursor: int, seconds: float) -> contextlib.AbstractContextManager[Any]:
        first = 10 * MISSED if seconds == 0.0 else 0
        command = [sys.executable, "-m", "benchmarks.crowd"]
        return helper([*command, *map(str, (self._port, count, cursor, first, seconds))])

    @contextlib.contextmanager
    def _publishing(self) -> Iterator[None]:
        thread = threading.Thread(target=self._publish, name="publisher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _publish(self) -> None:
        number = 10 * MISSED
        while not self._over.wait(1 / _RATE):
            number += 1
            self._publisher.one(number)

    def _ask(self, question: str) -> int:
        with psycopg.connect(self._url) as connection:
            ((number,),) = connection.execute(question.encode()).fetchall()
        return int(number)


def _figures(came: dict[str, Any], seen: dict[str, Any], sessions: int) -> dict[str, float]:
    if came["seconds"] is None:
        raise RuntimeError("not all who came back were live in the end")
    start, end = came["start"] * 1e9, (came["start"] + came["seconds"]) * 1e9
    before = sorted(time for sent, time in seen["times"] if sent < start)
    meanwhile = sorted(time for sent, time in seen["times"] if start <= sent < end)
    return {
        "back": came["seconds"],
        "refreshes": came["refreshes"] + seen["refreshes"],
        "disorder": came["disorder"] + seen["disorder"],
        "before_p99": percentile(before, 99),
        "p50": percentile(meanwhile, 50),
        "p99": percentile(meanwhile, 99),
        "max": percentile(meanwhile, 100),
        "sessions": sessions,
    }
