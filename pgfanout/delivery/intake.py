"""Intake: from the texts that a listener hears to the events that are dispatched."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from ..envelope import MalformedEnvelopeError, UnroutableEnvelopeError, decode
from ..event import Event, checked_event
from ..topic import Topic
from .dispatcher import Dispatcher
from .log import Log, LogSession, number_of

__all__ = ["LogIntake", "TextIntake"]

_FILL_TIME = 1.0
"""Seconds for which the listener reads what was missed. Then each reader has to ask the log for its own part."""
_REMEMBERED = 5_000
"""Numbers that are remembered, at least. A notification may come long after its event was read."""
_IN_TURN = 16
"""Notifications of a batch up to which events past the log are offered in their turn."""
_LAST = 2**63 - 1

# The last member of what the log notifies. A text that is JSON and ends like this has this id.
_number = re.compile(r'"id":"([0-9]{1,18})"\}\Z').search


class TextIntake:
    """For a backend without a log: each text is an event. For the listener's thread."""

    tells_gap: Final = False
    fills: Final = 0
    filled_events: Final = 0

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def catch_up(self, session: object) -> bool:
        """Begin with a new session. Nobody knows what came since the last one, if there was one."""
        return False

    def check(self) -> None:
        """There is nothing to check."""

    def receive(self, texts: Iterable[str]) -> None:
        """Dispatch the event of each text."""
        for text in texts:
            try:
                topic, event = decode(text)
            except UnroutableEnvelopeError:
                self._dispatcher.unroutable += 1
            except MalformedEnvelopeError as error:
                self._dispatcher.take_malformed(error)
            else:
                self._dispatcher.offer(topic, event)


class OfferedLog(Log, Protocol):
    """The log's side that the intake drives."""

    def renew(self) -> None:
        """The listener has a new session, perhaps with another server. Never waits."""

    def advanced(self) -> None:
        """`offered` has gone up. Never waits."""

    def start_pruning(self) -> None:
        """The log is there. Never waits."""


class LogIntake:
    """Dispatches the log's events in the order of their numbers, each once. For the listener's thread.

    A notification only says that the log has something new. Any role that can connect can notify, so the intake
    believes no text: after each batch of notifications it reads the log from `offered` on. So no text can forge an
    event of the log, hide one or move `offered`, and a damaged text costs nothing.

    A text whose number the log does not have is an event past the log, or none at all. It is dispatched, without a
    number, if the log is not `complete`. In a batch of up to 16 notifications it comes in its turn. In a larger batch
    the log's events come first, so strangers' notifications hold up an event of the log for one batch at most.
    If the log is not `complete`, each new session is a gap: nobody knows which events past the log were missed.

    Readers are woken before each query. The server's answer may be late, or never come.
    """

    tells_gap: Final = True
    """Whether `catch_up` has refreshed every consumer when it returns False."""

    _session: LogSession  # the listener's; `catch_up` comes first

    def __init__(self, log: OfferedLog, dispatcher: Dispatcher, *, max_replay: int) -> None:
        self._log = log
        self._dispatcher = dispatcher
        self._max_replay = max_replay
        self._recent: set[int] = set()  # numbers that were offered last, in two generations
        self._older: set[int] = set()
        self._asleep = False  # whether events were offered since the readers were woken
        self._damaged = False  # whether a text of this batch could not be decoded
        self._refreshes = 0
        self.fills = 0
        self.filled_events = 0

    def catch_up(self, session: LogSession | None) -> bool:
        """Begin with a new session: dispatch what was missed since the last one.

        Return False when the log can't tell all of it, and every consumer has got a refresh. Raise
        `HubConfigurationError` and what the session raises.
        """
        if session is None:
            raise TypeError("a backend with a log has to give its listener's session")
        self._log.renew()
        complete = self._begin(session)
        self._log.advanced()
        self._log.start_pruning()
        return complete

    def _begin(self, session: LogSession) -> bool:
        before = self._log.offered
        ends = session.ends()
        known = self._log.complete and before > 0 and session.knows(before)
        if self._log.offered != before:
            raise RuntimeError("another listener has gone on meanwhile")  # `start` gave up on this one
        self._session = session
        if known:
            return self._fill(ends.last)
        if before or self._dispatcher.has_consumers():
            self._refresh(ends.last)
            return False
        self._log.begun = self._log.offered = ends.last
        return True

    def check(self) -> None:
        """Raise what `catch_up` raises, if the log notifies another channel now, or is gone."""
        self._session.ends()

    def receive(self, texts: Sequence[str]) -> None:
        """Take a batch of notifications: dispatch what the log has after `offered`.

        Raise what the session raises. `offered` is right then, and the next session goes on from there.
        """
        numbers = [_number_at_end(text) for text in texts]
        if all(map(self._was_offered, numbers)):
            return
        self._asleep = False
        news = self._news(numbers)
        doubtful: list[tuple[str, int]] = []
        for text, number in zip(texts, numbers, strict=True):
            while self._log.offered < number and next(news, 0):
                pass
            if not number or number > self._log.offered:
                self._take_stray(text)
            elif not self._was_offered(number):
                doubtful.append((text, number))
        for _ in news:
            pass
        if self._damaged:  # it may have been of the log
            self._damaged = False
            for _ in self._read(_LAST):
                pass
        self._take_doubtful(doubtful)
        self._log.advanced()

    def _news(self, numbers: Sequence[int]) -> Iterator[int]:
        """`_read` for a batch of notifications with these numbers."""
        if self._log.complete:
            return self._read(_LAST)
        if len(numbers) > _IN_TURN:
            return iter(list(self._read(_LAST)))
        return self._read(max(numbers))  # as far as was notified, so that each event past the log comes in its turn

    def _take_doubtful(self, doubtful: list[tuple[str, int]]) -> None:
        """Take texts whose numbers are not above `offered`: of events that are not remembered, or invented."""
        if not doubtful:
            return
        self._wake()
        logged = self._session.among([number for _, number in doubtful])
        for text, number in doubtful:
            if number not in logged:
                self._take_stray(text)

    def _take_stray(self, text: str) -> None:
        """Take a notification that is no event of the log."""
        self._asleep = True
        try:
            topic, event = decode(text)
        except UnroutableEnvelopeError:
            self._dispatcher.unroutable += 1
        except MalformedEnvelopeError as error:
            self._damaged = True
            self._dispatcher.take_malformed(error)
        else:
            if self._log.complete:
                self._dispatcher.take_unlogged(topic)
            else:
                unnumbered = checked_event(event.channel, event.payload, event.type, "")
                self._dispatcher.offer(topic, unnumbered if number_of(event) else event)

    def _read(self, last: int) -> Iterator[int]:
        """Dispatch what comes after `offered`, up to a number. Yield each number once its event was offered."""
        while self._log.offered < last:
            self._wake()
            news = self._session.news(self._log.offered, last)
            if news.pruned_to > self._log.offered:
                self._refresh(self._session.ends().last)
                return
            for number, topic, event in news.events:
                self._offer(number, topic, event)
                yield number
            if not news.more:
                return

    def _fill(self, last: int) -> bool:
        self.fills += 1
        gaps, deadline = self._refreshes, time.monotonic() + _FILL_TIME
        for count, _ in enumerate(self._read(last), 1):
            self.filled_events += 1
            if count >= self._max_replay or time.monotonic() > deadline:
                return self._skip(last)
        self._wake()
        if self._refreshes > gaps:
            return False
        self._log.begun = self._log.offered = max(self._log.offered, last)
        return True

    def _skip(self, last: int) -> bool:
        """Go on after a number. Each reader gets from the log what it has missed up to there."""
        before = self._log.offered
        if before >= last:
            return True
        if not self._log.refill:
            self._refresh(last)
            return False
        self._log.begun = last
        self._dispatcher.skip(before, last)
        self._log.offered = last
        self._dispatcher.wake()
        return True

    def _refresh(self, last: int) -> None:
        """Refresh every consumer, and go on after a number.

        `offered` rises after the refresh. A client that got the number first, and lost its connection before the
        refresh, would never hear of the events in between.
        """
        self._refreshes += 1
        self._recent, self._older = set(), set()  # a log that has lost commits may draw the same numbers again
        if last < self._log.offered:
            self._log.offered = 0  # readers must not take a lost number for one that this process has offered
        self._log.begun = last
        self._dispatcher.gap()
        self._log.offered = last

    def _offer(self, number: int, topic: Topic, event: Event | None) -> None:
        # Set before the followers are looked up: a reader that comes later must not wait for this event.
        self._log.begun = number
        if event is None and self._dispatcher.has_followers(topic):
            event = self._fetch(number)
        if event is not None:
            self._dispatcher.offer(topic, event)
            self._asleep = True
        self._log.offered = number
        self._remember(number)

    def _fetch(self, number: int) -> Event | None:
        self._wake()
        event = self._session.one(number)
        if event is None:  # it was pruned in this moment
            self._dispatcher.gap()
        return event

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False
            self._dispatcher.wake()

    def _remember(self, number: int) -> None:
        self._recent.add(number)
        if len(self._recent) >= _REMEMBERED:
            self._older, self._recent = self._recent, set()

    def _was_offered(self, number: int) -> bool:
        return number in self._recent or number in self._older


def _number_at_end(text: str) -> int:
    found = _number(text, max(0, len(text) - 32))
    return int(found.group(1)) if found else 0
