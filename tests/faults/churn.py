"""Churn: streams and subscriptions come and go at full speed, for as long as wanted, and nothing may grow.

    python -m tests.faults.churn [--duration SECONDS]

Prints a line for each minute, and at the end what the worker holds compared with its first minute; the exit status is
1 when it holds more threads, descriptors, streams or subscriptions, or notably more memory.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Sequence
from statistics import median
from time import monotonic
from typing import Any

from tests.support.gunicorn import GunicornServer
from tests.support.postgres import PostgresServer
from tests.support.processes import session

__all__ = ["main"]

_TENANT = "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11"
_CLIENTS = 4
_STEADY = 4
_SAMPLE = 2.0


class Churn:
    """Clients that open a stream, read its start and leave, one way or another; and the worker's own subscriptions."""

    def __init__(self, site: GunicornServer) -> None:
        self._site = site
        self._stop = threading.Event()
        self.streams = 0
        self.subscriptions = 0
        self.delivered = 0
        work = [self._visit] * _CLIENTS + [self._follow] * _STEADY + [self._subscribe, self._publish]
        self._threads = [threading.Thread(target=self._repeat, args=(each,), daemon=True) for each in work]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except OSError:
                self._stop.wait(0.1)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._site.port), timeout=10)
        head = (
            f"GET /events?tenant={_TENANT}&channel=orders HTTP/1.1\r\nHost: site\r\nAccept: text/event-stream\r\n\r\n"
        )
        connection.sendall(head.encode())
        return connection

    def _visit(self) -> None:
        with self._connect() as connection:
            connection.recv(4096)
            self.streams += 1
            if self.streams % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def _follow(self) -> None:
        """One that stays, so that there is always somebody to deliver to."""
        with self._connect() as connection:
            while not self._stop.is_set() and (chunk := connection.recv(65536)):
                self.delivered += chunk.count(b"\ndata: ")

    def _subscribe(self) -> None:
        self._post("/churn?subscriptions=1000")
        self.subscriptions += 1000

    def _publish(self) -> None:
        self._post(f"/burst?tenant={_TENANT}&events=100")
        self._stop.wait(0.1)

    def _post(self, path: str) -> None:
        request = urllib.request.Request(self._site.url + path, method="POST")
        urllib.request.urlopen(request, timeout=30).close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.churn")
    parser.add_argument("--duration", type=float, default=1200.0, help="seconds")
    options = parser.parse_args(arguments)
    session.begin()
    try:
        with PostgresServer() as server:
            environment = {"DATABASE_URL": server.create_database("churn")}
            with GunicornServer(
                "tests.faults.app:app", config="tests/acceptance/apps/gunicorn.conf.py", threads=24, env=environment
            ) as site:
                return _watch(site, options.duration)
    finally:
        session.finish()


def _watch(site: GunicornServer, duration: float) -> int:
    churn = Churn(site)
    churn.start()
    minutes: list[list[dict[str, Any]]] = []
    began = monotonic()
    while (passed := monotonic() - began) < duration:
        minute = int(passed // 60)
        if minute == len(minutes):
            if minutes:
                print(_line(minute, minutes[-1], churn), flush=True)
            minutes.append([])
        threading.Event().wait(_SAMPLE)
        minutes[-1].append(_inside(site))
    print(_line(len(minutes), minutes[-1], churn), flush=True)
    churn.stop()
    return _verdict(site, minutes)


def _verdict(site: GunicornServer, minutes: list[list[dict[str, Any]]]) -> int:
    first, last = _summary(minutes[0]), _summary(minutes[-1])
    grown = [name for name in ("threads", "descriptors", "subscriptions") if last[name] > first[name] + 5]
    if last["memory"] > first["memory"] * 1.1:
        grown.append("memory")
    print(f"first minute {first}\nlast minute  {last}\ngrown: {', '.join(grown) or 'nothing'}")
    return 1 if grown else 0


def _inside(site: GunicornServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{site.url}/inside", timeout=30) as answer:
        told: dict[str, Any] = json.load(answer)
    return {**told, "threads": told["all_threads"]}


def _summary(samples: list[dict[str, Any]]) -> dict[str, float]:
    return {name: median(s[name] for s in samples) for name in ("memory", "threads", "descriptors", "subscriptions")}


def _line(minute: int, samples: list[dict[str, Any]], churn: Churn) -> str:
    now = _summary(samples)
    return (
        f"minute {minute:3}: {now['memory'] / 2**20:6.1f} MiB, {now['threads']:3.0f} threads,"
        f" {now['descriptors']:3.0f} descriptors, {now['subscriptions']:3.0f} subscriptions;"
        f" so far {churn.streams:,} streams, {churn.subscriptions:,} subscriptions, {churn.delivered:,} deliveries"
    )


if __name__ == "__main__":
    sys.exit(main())
