"""A process whose greenlets publish through one hub at once, some of them interrupted, under a monkey-patched library.

    python -m tests.support.greenlets gevent|eventlet URL

It prints the numbers of the publishes that were not interrupted, once all of them have returned.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

TENANT = "11111111-1111-4111-8111-111111111111"
GREENLETS, EACH = 8, 10


def patch(library: str) -> tuple[Callable[..., Any], Callable[..., Any], Any, Any]:
    """Patch the standard library. Return what starts a greenlet, waits for one, bounds a block's time, and sleeps."""
    module: Any = importlib.import_module(library)
    if library == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
        return module.spawn, lambda greenlet: greenlet.get(), module.Timeout, module.sleep
    module.monkey_patch()
    return module.spawn, lambda greenlet: greenlet.wait(), module.Timeout, module.sleep


def main(library: str, url: str) -> None:
    spawn, wait, time_out, sleep = patch(library)
    from pgfanout import PostgresHub

    sent: list[int] = []
    with PostgresHub(url) as hub:

        def publish(greenlet: int) -> None:
            for number in range(greenlet * EACH, (greenlet + 1) * EACH):
                hub.publish("orders", TENANT, number)
                sent.append(number)
                sleep(0)

        def be_interrupted() -> None:
            for _ in range(EACH):
                try:
                    with time_out(0.001):
                        while True:
                            hub.publish("noise", TENANT, "x" * 7000)
                except time_out:
                    pass

        greenlets = [spawn(publish, number) for number in range(GREENLETS)] + [spawn(be_interrupted)]
        for greenlet in greenlets:
            wait(greenlet)
        sys.stdout.write(f"{sorted(sent) == list(range(GREENLETS * EACH))}\n")
        hub.publish("orders", TENANT, "last")


if __name__ == "__main__":
    main(*sys.argv[1:])
