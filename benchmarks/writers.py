"""What publishing with history costs the writer, against pg_notify in the same transaction: scenario H."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import psutil
import psycopg

from pgfanout.backends.postgres.history.schema import Schema
from tests.support.postgres import PostgresServer

from .draining import draining
from .measurement import Measurement
from .options import Options
from .percentile import percentile
from .pgbench import Pgbench
from .publisher import PAYLOAD_SIZE
from .scenario import HISTORY, LIBRARY, MANY_WRITERS, NOTIFY, WRITERS, Trouble
from .servers.topic import CHANNEL, POSTGRES_CHANNEL, TENANT
from .waits import Waits, milliseconds
from .world import World

__all__ = ["writers"]

_VERSION = 18

# PostgreSQL's own values, where the other scenarios' server has faster or smaller ones.
_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
}
_IN_MEMORY = ("tmpfs", "ramfs")

_ROWS = 10_000
_TABLE = f"""
CREATE TABLE changed (id integer PRIMARY KEY, changes bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
INSERT INTO changed SELECT generate_series(1, {_ROWS});
ANALYZE changed;
CHECKPOINT
"""

# An id of as many digits as the history gives.
_TRANSACTION = f"""\
\\set row random(1, {_ROWS})
\\set id random(1000000000000000, 9007199254740991)
BEGIN;
UPDATE changed SET changes = changes + 1 WHERE id = :row;
{{publish}};
COMMIT;
"""
_PAYLOAD = f"""{{"n":' || :row || ',"t":1,"x":"{"x" * (PAYLOAD_SIZE - 24)}"}}"""
_WITHOUT_ID = f"""'{{"channel":"{CHANNEL}","tenant_id":"{TENANT}","payload":{_PAYLOAD}"""
_ENVELOPE = f"""{_WITHOUT_ID},"id":"' || :id || '"}}'"""


@dataclass(frozen=True)
class _Way:
    """One way to publish: the statement, and how its measurements are named."""

    name: str
    publish: str

    @property
    def script(self) -> str:
        return _TRANSACTION.format(publish=self.publish)


_BY_HAND = (
    _Way(HISTORY, f"SELECT pgfanout.publish('{CHANNEL}', '{TENANT}', '{_PAYLOAD}')"),
    _Way(NOTIFY, f"SELECT pg_notify('{POSTGRES_CHANNEL}', {_ENVELOPE})"),
)
_BY_THE_LIBRARY = (
    _Way(
        HISTORY + LIBRARY,
        f"SELECT pgfanout.publish(convert_from('{CHANNEL}'::bytea, 'UTF8'), '{TENANT}'::uuid,"
        f" convert_from(convert_to('{_PAYLOAD}', 'UTF8'), 'UTF8'), convert_from(''::bytea, 'UTF8'))",
    ),
    _Way(
        NOTIFY + LIBRARY,
        f"SELECT pg_notify('{POSTGRES_CHANNEL}', convert_from(envelope, 'UTF8'))"
        f" FROM unnest(ARRAY[convert_to({_ENVELOPE}, 'UTF8')]) AS envelope",
    ),
)


def writers(world: World, options: Options) -> Iterator[Measurement]:
    """Both ways take turns, so that what else the machine does hits both."""
    if not options.wants("H"):
        return
    try:
        with _server(world) as server:
            for ways, count, rounds in (
                (_BY_HAND, 1, options.writer_rounds),
                (_BY_HAND, MANY_WRITERS, options.writer_rounds),
                (_BY_THE_LIBRARY, 1, max(1, options.writer_rounds // 2)),
            ):
                yield from _turns(server, ways, count, rounds, options.writer_seconds)
    except Trouble as error:
        yield Measurement(WRITERS, HISTORY, 1, unit="writers", problem=str(error))


def _turns(
    server: PostgresServer, ways: tuple[_Way, ...], count: int, rounds: int, seconds: int
) -> Iterator[Measurement]:
    for way in ways:
        _run(server, way, count, 1)  # what is done for the first time: plans, caches, files that grow
    for round_ in range(1, rounds + 1):
        for way in ways:
            figures = _run(server, way, count, seconds)
            yield Measurement(WRITERS, way.name, count, round_, unit="writers", figures=figures)


@contextlib.contextmanager
def _server(world: World) -> Iterator[PostgresServer]:
    """A server that keeps what it commits, with the history, the table of the writers, and one who listens."""
    with world.placement.anywhere(), PostgresServer(version=_VERSION, settings=_SETTINGS) as server:
        if (kind := _file_system(server.data_directory)) in _IN_MEMORY:
            raise RuntimeError(f"the data directory is on {kind}, where a commit costs nothing: set TMPDIR")
        with server.connect() as connection:
            Schema(postgres_channel=POSTGRES_CHANNEL).install(connection)
            for statement in _TABLE.split(";"):
                connection.execute(statement.encode())
        with draining(server.connect(), POSTGRES_CHANNEL):
            yield server


def _run(server: PostgresServer, way: _Way, count: int, seconds: int) -> dict[str, float]:
    bench = Pgbench(way.script, _VERSION, server.url(), count, seconds)
    waits = Waits("pgbench", count)
    try:
        with bench.start() as process, server.connect() as connection:
            waits.watch(connection, lambda: process.poll() is not None)
            report, times = bench.end(process)
    except psycopg.Error as error:
        raise RuntimeError(str(error)) from error
    return {
        "rate": report.rate,
        "p50": percentile(times, 50),
        "p99": percentile(times, 99),
        "mean": mean(times),
        "commit": report.statements["COMMIT;"],
        **{event: milliseconds(waits.share(event), count, report.rate) for event in ("advisory", "object", "WalSync")},
    }


def _file_system(path: Path) -> str:
    """The kind of the file system that has it."""
    mounted = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return max(mounted, key=lambda part: len(part.mountpoint)).fstype if mounted else "unknown"
