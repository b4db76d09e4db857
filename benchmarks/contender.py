"""The contenders: how each is started, where it hears of events, and what it needs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import compiler, redis_server

__all__ = ["CONTENDERS", "Contender", "Launch"]


@dataclass(frozen=True)
class Launch:
    """What a server is started for and with. `floor` is the program, `datagrams` the socket it hears at."""

    port: int
    streams: int
    buffer_size: int
    database_url: str
    redis_url: str
    floor: Path
    datagrams: Path


@dataclass(frozen=True)
class Contender:
    """One way to serve streams.

    `most_streams` is how many it is asked for at most, and `limit` why. `source` is where it hears of events, `probe`
    what it answers once it is up.
    """

    name: str
    what: str
    command: Callable[[Launch], list[str]]
    modules: tuple[str, ...] = ()
    most_streams: int = 1_000_000
    limit: str = ""
    source: str = "postgres"
    probe: str | None = "/hello"

    def missing_reason(self) -> str | None:
        """Why it can't run here, or None."""
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"the package {module} is not installed"
        if self.source == "redis":
            return redis_server.missing_reason()
        return compiler.missing_reason() if self.source == "floor" else None

    def env(self, launch: Launch) -> dict[str, str]:
        """What its environment has, beside ours."""
        return {
            "DATABASE_URL": launch.database_url,
            "REDIS_URL": launch.redis_url,
            "PGFANOUT_DATABASE_URL": launch.database_url,
            "PGFANOUT_BUFFER_SIZE": str(launch.buffer_size),
            "PGFANOUT_BUFFER_BYTES": str(launch.buffer_size * 8192),
            "PGFANOUT_MAX_STREAMS": "20000",
            "PGFANOUT_DETACH": "auto" if self.name == "detached" else "never",
        }


def _gunicorn(launch: Launch, app: str, *options: object, config: str = "gunicorn_config") -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "--config", f"python:benchmarks.servers.{config}"]
    command += ["--bind", f"127.0.0.1:{launch.port}", "--workers", "1"]
    return [*command, *map(str, options), f"benchmarks.servers.{app}:app"]


def _detached(launch: Launch) -> list[str]:
    options = ("--worker-class", "gthread", "--threads", 4)
    return _gunicorn(launch, "pgfanout_app", *options, config="gunicorn_hooks_config")


def _threads(launch: Launch) -> list[str]:
    return _gunicorn(launch, "pgfanout_app", *_one_thread_each(launch), config="gunicorn_hooks_config")


def _tutorial(launch: Launch) -> list[str]:
    return _gunicorn(launch, "tutorial_app", *_one_thread_each(launch))


def _one_thread_each(launch: Launch) -> tuple[object, ...]:
    threads = launch.streams + 8
    # More connections than threads, or gunicorn stops to accept.
    return ("--worker-class", "gthread", "--threads", threads, "--worker-connections", threads + 1000)


def _flask_sse(launch: Launch) -> list[str]:
    return _gunicorn(launch, "flask_sse_app", "--worker-class", "gevent", "--worker-connections", launch.streams + 1000)


def _asyncio(launch: Launch) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(launch.port), "--backlog", "4096"]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [*command, "--timeout-graceful-shutdown", "1", "benchmarks.servers.asyncio_app:app"]


def _floor(launch: Launch) -> list[str]:
    return [str(launch.floor), str(launch.port), str(launch.datagrams)]


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            "detached",
            "pgfanout, streams detached: Flask, gunicorn gthread, 1 worker, 4 threads",
            _detached,
            ("flask", "gunicorn"),
        ),
        Contender(
            "floor",
            "a loop of write() in C: the same bytes to the same sockets, no database, no Python",
            _floor,
            source="floor",
            probe=None,
        ),
        Contender(
            "threads",
            "pgfanout, a thread for each stream: the same application, gunicorn with streams + 8 threads",
            _threads,
            ("flask", "gunicorn"),
            most_streams=1000,
            limit="a thread for each stream",
        ),
        Contender(
            "asyncio",
            "Starlette, sse-starlette, uvicorn with uvloop and httptools, psycopg's AsyncConnection, a queue a client",
            _asyncio,
            ("starlette", "sse_starlette", "uvicorn", "uvloop", "httptools"),
        ),
        Contender(
            "tutorial",
            "Flask, gunicorn gthread, one LISTEN connection and one thread for each client",
            _tutorial,
            ("flask", "gunicorn"),
            most_streams=50,
            limit="a connection for each client, and PostgreSQL's max_connections",
        ),
        Contender(
            "flask-sse",
            "flask-sse on Redis, gunicorn's gevent worker, a Redis connection for each client",
            _flask_sse,
            ("flask", "gunicorn", "gevent", "packaging", "flask_sse", "redis"),  # packaging: gunicorn's worker wants it
            most_streams=5000,
            limit="a Redis connection for each client",
            source="redis",
        ),
    )
}
