"""A process that ends, in one way or another, with a hub that nobody has closed.

    python -m tests.support.exiting return|exit|exception [URL]

Without a URL it has no hub, which shows how such a process ends by itself.
"""

from __future__ import annotations

import sys
import threading
import uuid

from pgfanout import PostgresHub

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")


def leave_running(url: str) -> None:
    """A listening hub, a thread that waits for events that come all the time, and one for those that never come."""
    hub = PostgresHub(url)
    busy, idle = hub.subscribe("orders", TENANT), hub.subscribe("nothing", TENANT)
    heard = threading.Event()

    def follow() -> None:
        for _ in busy:
            heard.set()

    def publish() -> None:
        while True:
            hub.publish("orders", TENANT, "noise")

    for work in (follow, idle.get, publish):
        threading.Thread(target=work, daemon=True).start()
    assert heard.wait(20)


def main(way: str, url: str = "") -> None:
    if url:
        leave_running(url)
    print("leaving", flush=True)
    if way == "exit":
        sys.exit(3)
    if way == "exception":
        raise RuntimeError("nobody expected this")


if __name__ == "__main__":
    main(*sys.argv[1:])
