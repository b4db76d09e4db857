"""Log: numbered events that can be read again, where a backend keeps some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from ..event import Event
from ..topic import Topic

__all__ = [
    "Answer",
    "Ends",
    "Found",
    "Log",
    "LogSession",
    "LogStore",
    "News",
    "Page",
    "UnreadableLogError",
    "always",
    "number_of",
    "numbered",
]

_DIGITS = 18
"""As many as a number of 64 bits has at least."""

# What readers see of a log.


class Page(NamedTuple):
    """A part of what came after a number."""

    events: list[Event]
    """In their order. Their ids are the numbers."""
    until: int
    """Of the topics asked for, everything after that number and up to this one is in `events`, and has been offered to
    the readers that follow them."""


Answer = Callable[["Page | None"], object]
"""Takes a page. None: the log does not know the number, or can't tell what came after it. Called in the log's thread,
which it must not hold up."""


def always() -> bool:
    """A question that is wanted until it is answered."""
    return True


class Log(Protocol):
    """The events of all topics, in one order.

    A number is known if the log has an event with that very number, or begins after it. A number that lies between two
    known ones may be one of a server that has lost its last commits, or somebody's invention.
    """

    begun: int
    """The number of the last event that is being offered, or was. It is set before the followers of the event's topic
    are looked up: a reader that follows by then is offered everything with a greater number."""

    offered: int
    """Everything up to this number has been offered. It is known."""

    refill: bool
    """Whether a reader that is too slow gets the events that its tail has dropped from the log. Otherwise it is told to
    refresh."""

    complete: bool
    """Whether the log has every event that is offered. If not, nobody knows what an absent reader has missed."""

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
        """Ask for the first page of what came after a number. Never waits.

        `known` says that the number comes from the log itself: from an earlier answer, or an event that was offered.
        Any other number is looked up, and answered with None unless it is known. `again` is how many pages of the same
        replay were asked for before. The question is dropped once `wanted` returns false; it may be called in any
        thread, and must not block. A closed log does not answer.
        """


# What a backend has to provide.


class UnreadableLogError(Exception):
    """The log can't be read, and asking again does not help: a table is missing, or a right. `str` says which."""


class Ends(NamedTuple):
    """What the log has: everything after `pruned_to`, and nothing after `last`."""

    pruned_to: int
    last: int
    rows: int
    """How many events there are, as of the last count."""


class Found(NamedTuple):
    """A page, and whether there may be more after it."""

    page: Page
    more: bool


class News(NamedTuple):
    """The first part of what came after a number, of all topics."""

    pruned_to: int
    """The number after which the log had everything when this was read."""
    events: list[tuple[int, Topic, Event | None]]
    """With their numbers, in their order. None stands for an event with a large payload; see `LogSession.one`."""
    more: bool
    """Whether there may be more after it."""


class LogSession(Protocol):
    """The log as one session of the backend reads it.

    Every method blocks for a round trip. It may raise `UnreadableLogError`, `HubConfigurationError` and the errors of
    the backend's driver.
    """

    def ends(self) -> Ends:
        """What the log has. Raises `HubConfigurationError` unless it is there, and this hub's."""

    def knows(self, number: int) -> bool:
        """Whether the log knows a number."""

    def among(self, numbers: Sequence[int]) -> set[int]:
        """Those of some numbers that events of the log have."""

    def news(self, after: int, last: int) -> News:
        """What came after a number, up to another, of all topics."""

    def one(self, number: int) -> Event | None:
        """The event with a number, if there is one."""

    def page(self, topics: Sequence[Topic], after: int, *, known: bool) -> Found | None:
        """What came after a number, of topics that may be of several tenants.

        None when that can't be told: part of it was pruned, or the number is not `known` and the log does not know it.
        """

    def is_too_much(self, topics: Sequence[Topic], after: int) -> bool:
        """Whether there are more events after a number than may be replayed."""

    def prune(self, batch: int) -> int | None:
        """Remove at most `batch` of the events that may go. Return how many, or None while another session does."""


class LogStore(Protocol):
    """Where a backend keeps the log, and how to read it."""

    refill: bool
    complete: bool
    """Both as in `Log`."""
    max_replay: int
    """How many events a reader may get from the log before it is told to refresh instead."""
    prune_every: float
    """Seconds from one pruning to the next."""
    errors: tuple[type[Exception], ...]
    """What a session raises when the server is away or refuses; anything else is a fault of the library."""

    def open(self) -> AbstractContextManager[LogSession]:
        """A session of its own, for one thread. Blocks until it is connected."""

    def stop(self) -> None:
        """Cut the open session, and each later one at once. From any thread, never waits."""

    def abandon(self) -> None:
        """In a forked child: let go of the parent's session without a word to its server."""


def number_of(event: Event) -> int:
    """The number that an event has in the log; 0 when it is in none."""
    return numbered(event.id)


def numbered(id: str) -> int:
    """The number that an id is; 0 when it is something else."""
    return int(id) if len(id) <= _DIGITS and id.isascii() and id.isdigit() else 0
