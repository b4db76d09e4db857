"""A crowd of browsers, from a process of its own: clients that come at once, with the id that each has seen last.

    python -m benchmarks.crowd PORT CLIENTS LAST_EVENT_ID FIRST SECONDS

LAST_EVENT_ID is 0 for clients that come for the first time. A client is live once it has the event with the number
FIRST, or a later one. It ends when all are live and `SECONDS` are over, or at its limit, and prints one line of JSON:
after how many seconds the last client was live (null when not all are), how many were told to refresh, how many events
came twice or out of order, and of each later event when it was sent and how many milliseconds it took.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

from .servers.topic import TENANT

__all__ = ["main"]

_LIMIT = 60.0
_EVENT = re.compile(rb'"n":(\d+),"t":(\d+)')
_LONGEST = 64
"""Bytes that such a piece has at most."""


class Client:
    """One connection, and the last number that it has seen."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rest = b""
        self.number = -1

    @classmethod
    def connecting(cls, port: int) -> Client:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
        return cls(connection)

    def read(self) -> tuple[bytes, list[tuple[int, int]]]:
        """What has come, and the events in it: number and time. Raises RuntimeError at the end."""
        data = self.connection.recv(1 << 18)
        if not data:
            raise RuntimeError("a stream has ended")
        text = self.rest + data
        found = list(_EVENT.finditer(text))
        self.rest = text[max(found[-1].end() if found else 0, len(text) - _LONGEST) :]
        return data, [(int(each[1]), int(each[2])) for each in found]


class Crowd:
    """All clients."""

    def __init__(self, port: int, count: int, last_event_id: str, first: int) -> None:
        header = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id != "0" else ""
        self.request = f"GET /events?tenant={TENANT} HTTP/1.1\r\nHost: bench\r\n{header}\r\n".encode()
        self.first = first
        self.poll = select.epoll()
        self.start = time.monotonic()
        clients = [Client.connecting(port) for _ in range(count)]
        self.clients = {client.connection.fileno(): client for client in clients}
        for descriptor in self.clients:
            self.poll.register(descriptor, select.EPOLLOUT)
        self.live = self.refreshes = self.disorder = 0
        self.all_live: float | None = None
        self.times: list[tuple[int, float]] = []

    def run(self, seconds: float) -> None:
        end, limit = self.start + seconds, self.start + _LIMIT
        while (now := time.monotonic()) < limit and (now < end or self.all_live is None):
            for descriptor, happened in self.poll.poll(0.05):
                if happened & select.EPOLLOUT:
                    self.clients[descriptor].connection.send(self.request)
                    self.poll.modify(descriptor, select.EPOLLIN)
                else:
                    self._take(self.clients[descriptor])

    def _take(self, client: Client) -> None:
        data, events = client.read()
        now = time.monotonic_ns()
        self.refreshes += data.count(b"event: refresh")
        for number, sent in events:
            self.disorder += number <= client.number
            if number >= self.first > client.number:
                self._count_live()
            elif number > self.first:
                self.times.append((sent, (now - sent) / 1e6))
            client.number = number

    def _count_live(self) -> None:
        self.live += 1
        if self.live == len(self.clients):
            self.all_live = time.monotonic() - self.start


def main() -> None:
    port, count, last_event_id, first, seconds = sys.argv[1:]
    crowd = Crowd(int(port), int(count), last_event_id, int(first))
    crowd.run(float(seconds))
    print(
        json.dumps(
            {
                "seconds": crowd.all_live,
                "start": crowd.start,
                "refreshes": crowd.refreshes,
                "disorder": crowd.disorder,
                "times": crowd.times,
            }
        )
    )


if __name__ == "__main__":
    main()
