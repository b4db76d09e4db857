"""Streams of one topic, or of a topic each, from a process of its own.

    python -m benchmarks.topics PORT CHANNEL STREAMS

In CHANNEL a star stands for the number of the stream. It opens the streams and prints "open"; then it reads until its
standard input ends, and prints one line of JSON: the milliseconds that each event took, and how many were told to
refresh.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from urllib.parse import quote

from .crowd import Client

__all__ = ["main"]

_CONNECTING = 128
_LIMIT = 120.0


class Streams:
    """All streams, and what they have received."""

    def __init__(self, port: int, channel: str) -> None:
        self.port = port
        self.channel = channel
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.open = self.refreshes = 0
        self.milliseconds: list[float] = []

    def connect(self, count: int) -> None:
        deadline = time.monotonic() + _LIMIT
        for number in range(count):
            while len(self.clients) - self.open >= _CONNECTING:
                self.turn()
            self._begin(number)
        while self.open < count:
            self.turn()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.open} of {count} streams are open after {_LIMIT:g} s")

    def turn(self) -> None:
        for descriptor, _ in self.poll.poll(0.05):
            if descriptor in self.clients:
                self._take(self.clients[descriptor])

    def _begin(self, number: int) -> None:
        connection = socket.create_connection(("127.0.0.1", self.port))
        channel = quote(self.channel.replace("*", str(number)))
        connection.sendall(b"GET /events?channel=%b HTTP/1.1\r\nHost: bench\r\n\r\n" % channel.encode())
        connection.setblocking(False)
        client = Client(connection)
        self.clients[connection.fileno()] = client
        self.poll.register(connection.fileno(), select.EPOLLIN)

    def _take(self, client: Client) -> None:
        data, events = client.read()
        now = time.monotonic_ns()
        self.open += b": open" in data
        self.refreshes += data.count(b"event: refresh")
        self.milliseconds += [(now - sent) / 1e6 for number, sent in events if number]


def main() -> None:
    port, channel, count = sys.argv[1:]
    streams = Streams(int(port), channel)
    streams.connect(int(count))
    print("open", flush=True)
    streams.poll.register(sys.stdin.fileno(), select.EPOLLIN)
    while not select.select([sys.stdin], [], [], 0)[0]:
        streams.turn()
    print(json.dumps({"milliseconds": sorted(streams.milliseconds), "refreshes": streams.refreshes}))


if __name__ == "__main__":
    main()
