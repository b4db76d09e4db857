"""The publisher: numbered events with the time of their publishing, at a steady rate or in bursts."""

from __future__ import annotations

import time

from .sender import Sender

__all__ = ["PAYLOAD_SIZE", "Publisher"]

PAYLOAD_SIZE = 100
"""Bytes of JSON in an event."""


class Publisher:
    """Publishes through a sender. The events of each call are numbered from 1."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def steady(self, rate: float, count: int) -> None:
        """`count` events, each a transaction, `rate` in a second."""
        start = time.monotonic()
        for index in range(count):
            time.sleep(max(0.0, start + index / rate - time.monotonic()))
            self._send(index + 1, 1)

    def burst(self, transactions: int, size: int) -> None:
        """Transactions of `size` events each, one right after the other."""
        for index in range(transactions):
            self._send(1 + index * size, size)

    def one(self, number: int) -> None:
        """One event with that number."""
        self._send(number, 1)

    def prime(self) -> None:
        """An event with the number 0, which belongs to no measurement."""
        self._send(0, 1)

    def _send(self, first: int, count: int) -> None:
        now = time.monotonic_ns()
        self._sender.send([_payload(number, now) for number in range(first, first + count)])


def _payload(number: int, now: int) -> bytes:
    start = b'{"n":%d,"t":%d,"x":"' % (number, now)
    return start + b"x" * (PAYLOAD_SIZE - len(start) - 2) + b'"}'
