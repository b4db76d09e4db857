"""Ordinary requests beside the streams, from a process of their own.

    python -m benchmarks.ordinary PORT SECONDS CLIENTS

Each client asks for /hello again and again, by a new connection every time, and waits for the answer before it asks
anew. Prints one line of JSON: how many were answered, how many failed, and p50, p99 and max in milliseconds.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

from .percentile import percentile

__all__ = ["main"]

_LIMIT = 30.0


class Client(threading.Thread):
    """One client, until `end` (monotonic seconds)."""

    def __init__(self, port: int, end: float) -> None:
        super().__init__(name="ordinary", daemon=True)
        self.port = port
        self.end = end
        self.seconds: list[float] = []
        self.failed = 0

    def run(self) -> None:
        while (start := time.monotonic()) < self.end:
            if self._ask():
                self.seconds.append(time.monotonic() - start)
            else:
                self.failed += 1

    def _ask(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_LIMIT)
        try:
            connection.request("GET", "/hello", headers={"Connection": "close"})
            response = connection.getresponse()
            return response.read() == b"hello" and response.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def main() -> None:
    port, seconds, count = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    end = time.monotonic() + seconds
    clients = [Client(port, end) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    times = sorted(1000 * each for client in clients for each in client.seconds)
    print(
        json.dumps(
            {
                "answered": len(times),
                "failed": sum(client.failed for client in clients),
                "p50": percentile(times, 50),
                "p99": percentile(times, 99),
                "max": percentile(times, 100),
            }
        )
    )


if __name__ == "__main__":
    main()
