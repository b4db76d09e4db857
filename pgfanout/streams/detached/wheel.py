"""Wheel: when to look at which stream again, without a timer for each."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

__all__ = ["Ticking", "Wheel"]


class Ticking:
    """What a wheel holds; it knows its own place there."""

    __slots__ = ("tick",)

    tick: int


_Item = TypeVar("_Item", bound=Ticking)


class Wheel(Generic[_Item]):
    """Items by due time, in slots of `TICK` seconds; for one thread.

    A write to an item does not move it. The item comes up at its old due time, and the caller adds it again if it is
    due later now. So ten thousand items cost one look each, once in each of their waits.
    """

    TICK = 0.05

    def __init__(self) -> None:
        self._slots: dict[int, dict[_Item, None]] = {}
        self._ticks: list[int] = []  # a heap of the slots' numbers

    def add(self, item: _Item, due: float) -> None:
        """Have an item come up at `due` (seconds of a clock of the caller's), or a tick earlier."""
        item.tick = int(due / self.TICK)
        slot = self._slots.get(item.tick)
        if slot is None:
            slot = self._slots[item.tick] = {}
            heapq.heappush(self._ticks, item.tick)
        slot[item] = None

    def discard(self, item: _Item) -> None:
        """Have it come up no more. Idempotent."""
        slot = self._slots.get(item.tick, {})
        slot.pop(item, None)

    def pop_due(self, now: float) -> list[_Item]:
        """The items that are due, which are no longer in the wheel."""
        due: list[_Item] = []
        while self._ticks and self._ticks[0] * self.TICK <= now:
            due += self._slots.pop(heapq.heappop(self._ticks))
        return due

    def wait(self, now: float) -> float | None:
        """Seconds until the next slot is due; None when there is none."""
        return max(0.0, self._ticks[0] * self.TICK - now) if self._ticks else None
