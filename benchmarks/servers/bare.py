"""`bare notifies`: what psycopg alone drains into nothing.

    python -m benchmarks.servers.bare EVENTS

Listens, says "ready", and after so many notifications tells the seconds from the first to the last of them.
"""

from __future__ import annotations

import os
import sys
import time

import psycopg

from .topic import POSTGRES_CHANNEL

__all__ = ["main"]


def main() -> None:
    total = int(sys.argv[1])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"LISTEN {POSTGRES_CHANNEL}")
        print("ready", flush=True)
        notifies = connection.notifies(stop_after=total)
        next(notifies)
        start, count = time.monotonic(), 1
        for _ in notifies:
            count += 1
        print(count, time.monotonic() - start, flush=True)


if __name__ == "__main__":
    main()
