"""What slow readers of large events cost a real worker: the events that are there, and not a copy for each reader."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pgfanout import PostgresHub
from tests.support.gunicorn import GunicornServer

from .conftest import Serve
from .test_gunicorn import TENANT

READERS, EVENTS, SIZE = 10, 30, 1_000_000
MOST = 32.0
"""MiB that the worker may grow by in all; a copy of a feed for each reader would be 600."""
PATIENCE = 120.0

_NUMBER = re.compile(rb"data: \[(\d+),")
_LONGEST = 16


@pytest.fixture
def hub(fresh_database_url: str) -> Iterator[PostgresHub]:
    with PostgresHub(fresh_database_url, history=True) as hub:
        hub.install_history()
        yield hub


@pytest.mark.slow  # memory is measured with the newest versions only
def test_ten_slow_readers_of_large_events_get_everything_and_share_it(serve: Serve, hub: PostgresHub) -> None:
    server = serve(threads=4, env={"PGFANOUT_HISTORY": "true"})
    with ExitStack() as stack:
        readers = [stack.enter_context(open_stream(server)) for _ in range(READERS)]
        with growth(server.worker_pids()[0]) as grown, ThreadPoolExecutor(READERS) as pool:
            for number in range(EVENTS):  # more than the sockets hold: all are behind
                hub.publish("orders", TENANT, [number, "x" * SIZE])
            reading = [pool.submit(read_slowly, reader, pause) for pause, reader in enumerate(readers)]
            assert [future.result(PATIENCE) for future in reading] == [(list(range(EVENTS)), EVENTS * SIZE)] * READERS
    print(f"the worker grew by {max(grown):.1f} MiB")
    assert max(grown) < MOST


@contextmanager
def open_stream(server: GunicornServer) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.settimeout(PATIENCE)
        connection.connect((server.host, server.port))
        connection.sendall(f"GET /events?tenant={TENANT} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head or b": open" not in head:
            head += connection.recv(65_536)
        yield connection


def read_slowly(connection: socket.socket, pause: int) -> tuple[list[int], int]:
    """The events' numbers, and how many bytes of payload came with them. Each reader has a pace of its own, so that no
    two are at the same place."""
    numbers: list[int] = []
    filling, rest = 0, b""
    while filling < EVENTS * SIZE:
        data = connection.recv(1 << 18)
        assert data, f"the stream was cut after {numbers}"
        filling += data.count(b"x")
        rest += data
        assert b"refresh" not in rest
        found = list(_NUMBER.finditer(rest))
        numbers += [int(each[1]) for each in found]
        rest = rest[max(len(rest) - _LONGEST, found[-1].end() if found else 0) :]
        time.sleep(pause / 1000)
    return numbers, filling


@contextmanager
def growth(pid: int) -> Iterator[list[float]]:
    """MiB by which a process is larger than at the beginning, over and over."""
    before, done = resident(pid), threading.Event()
    grown = [0.0]

    def watch() -> None:
        while not done.wait(0.02):
            grown.append(resident(pid) - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield grown
    finally:
        done.set()
        watching.join()


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
