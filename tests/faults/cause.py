"""Cause: what a fault did that has to be told as a gap, or may be, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from .ledger import Sent
from .record import RETURN, Item, Record, Topic

__all__ = ["Cause"]


@dataclass(eq=False)
class Cause:
    """It excuses refreshes of the readers that it concerns, from `since` on; any other refresh is needless.

    A reader is concerned if it follows one of `topics`, through one of `paths` (None: whichever), so many `times` for
    each of these paths; with `each_second`, once more for each second until `until`, and each time that it comes back
    meanwhile. What `removes` events from the log concerns each reader that may be behind, whatever it follows; a prompt
    one is not when the hubs had offered all of it, in a `calm` moment. Besides, a reader is concerned each time that it
    comes back with a number that is nobody's any more: one of `numbers`, or one below `below`.
    """

    what: str
    since: float
    until: float = 0.0
    topics: frozenset[Topic] | None = None
    paths: frozenset[str] | None = None
    times: int = 1
    each_second: bool = False
    numbers: set[str] = field(default_factory=set)
    below: int = 0
    removes: bool = False
    """Whether events of its topics, committed before `until`, are gone for those who don't have them yet."""
    calm: bool = False

    def budget(self, record: Record) -> int:
        """How many refreshes it excuses in a record."""
        return self._directly(record) + sum(self._is_return_with_unknown(each) for each in record.items)

    def took(self, sent: Sent) -> bool:
        """Whether it may have removed an event."""
        return self.removes and sent.begun <= self.until and (self.topics is None or sent.topic in self.topics)

    def disowns(self, number: str) -> bool:
        """Whether nobody can say what came after a number, since this happened."""
        return number in self.numbers or (number.isdigit() and int(number) < self.below)

    def _directly(self, record: Record) -> int:
        if (self.calm and record.prompt) or not (self.removes or self.topics is None or self.topics & record.topics):
            return 0
        paths = 1 if self.paths is None else len(self.paths & record.paths)
        if not (paths and self.each_second):
            return paths * self.times
        returns = sum(item.type == RETURN and self.since <= item.at <= self.until + 1 for item in record.items)
        # One at each end, and one more: a reader that is behind may have the same gap from the log and from its hub.
        return paths * (3 + int(self.until - self.since)) + returns

    def _is_return_with_unknown(self, item: Item) -> bool:
        return item.type == RETURN and item.at >= self.since and self.disowns(item.payload.decode())
