"""Log: numbered events that can be read again, where a backend keeps some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..event import Event
from ..topic import Topic

__all__ = ["Answer", "Log", "Page", "always", "number_of", "numbered"]

_DIGITS = 18
"""As many as a number of 64 bits has at least."""


class Page(NamedTuple):
    """What came after a number."""

    events: list[Event]
    """In their order; the ids are the numbers."""
    until: int
    """Of the topics asked for, everything after that number and up to this one is in `events`, and has
    been offered to who follows them."""


Answer = Callable[["Page | None"], object]
"""Takes a page, or None: the log does not know the number, or can't tell what came after it. In the
thread of the log, which it must not hold up."""


def always() -> bool:
    """A question that is wanted until it is answered."""
    return True


class Log(Protocol):
    """The events of all topics, in one order.

    A number is known if the log has an event with that very number, or begins after it. A number that lies between two
    that are known may be one of a server that has lost its last commits, or somebody's invention.
    """

    begun: int
    """The number of the last event that is being offered, or was. It is set before those who follow its topic
    are looked up: what has a greater number is offered to whoever follows by then."""

    offered: int
    """Everything up to this number has been offered. It is known."""

    refill: bool
    """Whether a reader that is too slow gets from the log what it had no room for; otherwise it is told to refresh."""

    complete: bool
    """Whether it has every event that is offered. If not, nobody knows what a reader that was away has missed."""

    def ask(
        self,
        topics: Sequence[Topic],
        after: int,
        answer: Answer,
        *,
        known: bool = False,
        again: int = 0,
        wanted: Callable[[], bool] = always,
    ) -> None:
        """Have what came after a number read, and answered; the first part of it, when it's much. Never waits.

        `known` says that the number comes from the log itself: from an earlier answer, or an event that was offered.
        Any other number is looked up, and answered with None unless it is known. `again` is how many parts of it
        were asked for before. A question that is not `wanted` any more is dropped; that is asked in any thread, and
        must not block. A log that is closed does not answer.
        """


def number_of(event: Event) -> int:
    """The number that an event has in the log; 0 when it is in none."""
    return numbered(event.id)


def numbered(id: str) -> int:
    """The number that an id is; 0 when it is something else."""
    return int(id) if len(id) <= _DIGITS and id.isascii() and id.isdigit() else 0
