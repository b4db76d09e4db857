"""What the tests of processes and of clients do alike: ask a worker, publish all the time, look for holes."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg

from pgfanout import PostgresHub
from tests.support.gunicorn import GunicornServer
from tests.support.wait import eventually

TENANT = "11111111-1111-4111-8111-111111111111"
LONG = 40.0


def ask(server: GunicornServer, path: str, method: str = "GET", accept: str = "*/*") -> tuple[int, bytes]:
    """Status and body; what is sent with the method POST is JSON."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=LONG)
    try:
        body = "1" if method == "POST" else None
        connection.request(method, path, body, {"Accept": accept, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def inside(server: GunicornServer) -> dict[str, Any]:
    """What the worker holds."""
    answer: dict[str, Any] = json.loads(ask(server, "/inside")[1])
    return answer


def settled(server: GunicornServer) -> dict[str, Any]:
    """What the worker holds once it listens and the thread that saw to that has ended."""

    def look() -> dict[str, Any] | None:
        seen = inside(server)
        return seen if seen["listening"] and "pgfanout-starter" not in seen["threads"] else None

    return eventually(look) or {}


def holds_nothing(server: GunicornServer) -> bool:
    """Whether no stream and no subscription is there any more, registered or forgotten."""
    seen = inside(server)
    return (seen["streams"], seen["subscriptions"], seen["objects"]) == (0, 0, 0)


def sessions(url: str) -> list[int]:
    """The server processes of the listeners of a database."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE application_name = 'pgfanout-listener' AND datname = current_database()"
        )
        return [pid for (pid,) in rows]


@contextmanager
def publishing(url: str, per_second: int, filler: int = 0) -> Iterator[Callable[[], int]]:
    """Numbered events, some in each transaction, until the block ends; what it yields tells how many were sent."""
    size, sent, stop = max(1, per_second // 100), 0, threading.Event()

    def work() -> None:
        nonlocal sent
        with PostgresHub(url) as hub:
            due = time.monotonic()
            while not stop.is_set():
                hub.publish_many([("orders", TENANT, [sent + n, "x" * filler]) for n in range(size)])
                sent += size
                due = max(due + size / per_second, time.monotonic() - 1.0)
                stop.wait(due - time.monotonic())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            yield lambda: sent
        finally:
            stop.set()
        done.result(LONG)


def assert_gaps_are_told(events: Sequence[int | None], final: int) -> None:
    """Numbers follow each other without a hole up to the final one, but where there is None, a refresh."""
    for before, number in itertools.pairwise([*events, final + 1]):
        assert before is None or number is None or number == before + 1, f"{number} after {before}"
    assert any(number is not None for number in events)


def publish_end(url: str, reader: Future[Any]) -> None:
    """Publish "end" until the reader has seen it: an event that meets a full queue gives way to a refresh."""
    with PostgresHub(url) as hub:
        for _ in range(400):
            hub.publish("orders", TENANT, "end")
            if wait([reader], timeout=0.1).done:
                return
