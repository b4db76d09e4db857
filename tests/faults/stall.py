"""One reader that stalls among a hundred: what it costs the others, measured with and without it in one run.

    python -m tests.faults.stall [--rounds N] [--seconds SECONDS]

Prints the times from publish to receipt of 99 streams for each round, and whether the stalled one was let go and
counted. Nothing is asserted: a noisy machine has noisy times.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import threading
import urllib.request
from collections.abc import Sequence
from statistics import median, quantiles
from time import monotonic

from pgfanout import PostgresHub
from tests.support.gunicorn import GunicornServer
from tests.support.postgres import PostgresServer
from tests.support.processes import session
from tests.support.wait import eventually

__all__ = ["main"]

_TENANT = "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11"
_STREAMS = 100
_CLIENT_TIMEOUT = 3.0
_RATE = 40
_FILLER = "x" * 7000


class Readers:
    """One thread that reads all sockets but the stalled ones, and notes how late each event is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._rest: dict[socket.socket, bytes] = {}
        self.delays: list[float] = []

    def open(self, count: int, *, stalled: bool = False) -> None:
        for _ in range(count):
            reader = socket.socket()
            if stalled:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", self._port))
            reader.sendall(
                f"GET /events?tenant={_TENANT}&channel=orders HTTP/1.1\r\nHost: site\r\n"
                "Accept: text/event-stream\r\n\r\n".encode()
            )
            assert b"200 OK" in reader.recv(1024)
            self._sockets.append(reader)
            if not stalled:
                self._rest[reader] = b""
                self._selector.register(reader, selectors.EVENT_READ)

    def read(self, until: float) -> None:
        while (left := until - monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._take(key.fileobj)  # type: ignore[arg-type]

    def _take(self, reader: socket.socket) -> None:
        *lines, self._rest[reader] = (self._rest[reader] + reader.recv(1 << 20)).split(b"\n")
        now = monotonic()
        for line in lines:
            if line.startswith(b'data: {"at"'):
                self.delays.append(now - float(line[12 : line.index(b",")]))

    def close(self) -> None:
        for reader in self._sockets:
            reader.close()
        self._selector.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.stall")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args(arguments)
    session.begin()
    try:
        with PostgresServer() as server:
            url = server.create_database("stall")
            environment = {"DATABASE_URL": url, "PGFANOUT_CLIENT_TIMEOUT": str(_CLIENT_TIMEOUT)}
            with (
                GunicornServer(
                    "tests.faults.app:app",
                    config="tests/acceptance/apps/gunicorn.conf.py",
                    threads=_STREAMS + 4,
                    env=environment,
                ) as site,
                PostgresHub(url) as hub,
            ):
                _compare(site, hub, options.rounds, options.seconds)
    finally:
        session.finish()
    return 0


def _compare(site: GunicornServer, hub: PostgresHub, rounds: int, seconds: float) -> None:
    medians: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for stalled in (False, True):
            delays = _round(site, hub, seconds, stalled=stalled)
            cuts = quantiles(delays, n=100)
            medians[stalled].append(cuts[98])
            print(
                f"{'one of 100 stalled' if stalled else 'all 100 reading':20} {len(delays):7,} deliveries:"
                f" p50 {cuts[49] * 1000:6.2f} ms, p99 {cuts[98] * 1000:6.2f} ms, max {max(delays) * 1000:6.2f} ms",
                flush=True,
            )
    print(f"p99 with a stalled reader to p99 without: {median(medians[True]) / median(medians[False]):.2f}")
    eventually(lambda: _inside(site)["stalled_readers"] == rounds)
    print(f"let go and counted: {rounds} of {rounds}")


def _round(site: GunicornServer, hub: PostgresHub, seconds: float, *, stalled: bool) -> list[float]:
    readers = Readers(site.port)
    readers.open(_STREAMS - 1)
    readers.open(1, stalled=stalled)
    stop = threading.Event()
    publisher = threading.Thread(target=_publish, args=(hub, stop), daemon=True)
    publisher.start()
    readers.read(monotonic() + seconds)
    delays = list(readers.delays)
    while stalled and _inside(site)["subscriptions"] == _STREAMS:  # the kernel's buffers may not be full yet
        readers.read(monotonic() + 0.5)
    stop.set()
    publisher.join()
    readers.close()
    eventually(lambda: _inside(site)["streams"] == 0, timeout=30.0)
    return delays


def _publish(hub: PostgresHub, stop: threading.Event) -> None:
    while not stop.wait(1 / _RATE):
        hub.publish("orders", _TENANT, {"at": monotonic(), "filler": _FILLER})


def _inside(site: GunicornServer) -> dict[str, int]:
    with urllib.request.urlopen(f"{site.url}/inside", timeout=30) as answer:
        told: dict[str, int] = json.load(answer)
    return told


if __name__ == "__main__":
    sys.exit(main())
