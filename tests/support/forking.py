"""A process that forks again and again while its other threads publish and subscribe.

    python -m tests.support.forking memory|postgres URL

It prints "heard" for each child whose hub worked, and "still alive" when the parent's did to the end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable

from pgfanout import MemoryHub, NotifyHub, PostgresHub

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0


def hear(hub: NotifyHub, channel: str) -> None:
    """Publish, and receive it."""
    with hub.subscribe(channel, TENANT) as subscription:
        hub.publish(channel, TENANT, "anything")
        subscription.get(LONG)


def fork(hub: NotifyHub) -> None:
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs ends without a word
        hear(hub, "quiet")
        hub.close()
        os.write(1, b"heard ")
        os._exit(0)
    os.waitpid(pid, 0)


def main(kind: str, url: str) -> None:
    stop = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    with MemoryHub() if kind == "memory" else PostgresHub(url) as hub:
        hub.start()
        noise = [
            lambda: hub.publish("orders", TENANT, "noise"),
            lambda: hub.publish("orders", TENANT, "noise"),
            lambda: hub.subscribe("orders", uuid.uuid4()).close(),
        ]
        threads = [threading.Thread(target=repeat, args=(work,)) for work in noise]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                fork(hub)
        finally:
            stop.set()
            for thread in threads:
                thread.join(LONG)
        hear(hub, "last")
    print("still alive")


if __name__ == "__main__":
    main(*sys.argv[1:])
