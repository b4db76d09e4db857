"""Which CPUs the server has, and which everything else: the same for every contender."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Placement"]


class Placement:
    """With `pinned`, a server has the first CPU, and the load client, the publisher and PostgreSQL have the others.

    Clients are on other machines in life, and on few cores they take the server's from it now and then: ratios vary
    less this way. Without, or on a machine with one CPU, the kernel places them.
    """

    def __init__(self, pinned: bool) -> None:
        self._cpus = os.sched_getaffinity(0)
        self.pinned = pinned and len(self._cpus) > 1

    def begin(self) -> None:
        """Place this process, and what it starts from now on, where the server is not."""
        if self.pinned:
            os.sched_setaffinity(0, self._others())

    def end(self) -> None:
        os.sched_setaffinity(0, self._cpus)

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """What is started within has every CPU."""
        os.sched_setaffinity(0, self._cpus)
        try:
            yield
        finally:
            self.begin()

    @contextmanager
    def server(self) -> Iterator[None]:
        """What is started within has the server's CPU."""
        if not self.pinned:
            yield
            return
        os.sched_setaffinity(0, {min(self._cpus)})
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._others())

    def _others(self) -> set[int]:
        return self._cpus - {min(self._cpus)}

    def __str__(self) -> str:
        return "the server on one CPU, all else on the others" if self.pinned else "placed by the kernel"
