"""Browsers: subscribers that follow streams of the site, and come back to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from urllib.parse import urlencode

from pgfanout import NotifyHub
from tests.support.sse import EventSource, SentEvent

from .record import Record, Topic
from .subscribers import Subscriber

__all__ = ["StreamSubscriber"]


_ENGINES = ("by the letter", "as Chromium", "as Firefox")
"""How browsers remember an id. Firefox takes one from a block with data alone."""


class StreamSubscriber(Subscriber):
    """A browser's EventSource on a stream of a site: it comes back by itself, with its last event id.

    `urls` are the sites by the names of their paths; with several, each visit is to any of them. `detach` is what the
    site is asked for: "auto" or "never". `cut_allowed` tells whether a stream may end without a farewell at the moment.
    `renderers` are the hubs that pages may be rendered by: with history some pages have such a hub's cursor in their
    stream's URL, and miss nothing from then on.
    """

    def __init__(
        self,
        name: str,
        topics: Sequence[Topic],
        temper: str,
        seed: str,
        urls: Mapping[str, str],
        detach: str,
        cut_allowed: Callable[[], bool],
        renderers: Mapping[str, NotifyHub],
    ) -> None:
        super().__init__(name, topics, temper, seed, urls)
        self._urls = list(urls.values())
        self._detach = detach
        self._cut_allowed = cut_allowed
        renderer = self._random.choice(sorted(renderers))
        self._history = renderers[renderer].has_history
        self._hub = renderers[renderer] if self._history and self._random.random() < 0.3 else None
        if self._hub is not None:
            self.paths |= {renderer}
        self._rendered: tuple[str, float] | None = None
        self._last_event_id: str | None = None
        self._engine = self._random.choice(_ENGINES)
        # Between a server and a reader on one machine the kernel holds megabytes, and hides how slow the reader is.
        # A socket of 2 KB can't hold what a large event is sent in: the system drops it there, time and again.
        self._buffer = self._random.choice((None, 16_384 if self._history else 2048))
        # A full socket takes no farewell either, and a worker that stops does not wait for a reader that reads nothing;
        # with history, which drops nothing and has larger events, neither for one that reads little at a time.
        late = ("stalled", "stalling", "slow") if self._history else ("stalled", "stalling")
        self._may_miss_the_farewell = self._buffer is not None and temper in late

    def _follow(self) -> None:
        if self._hub is not None and self._rendered is None:
            self._render(self._hub)
        asked = monotonic()
        try:
            source = EventSource(
                self._stream_url(), last_event_id=self._last_event_id, timeout=15.0, receive_buffer=self._buffer
            )
        except (OSError, AssertionError):  # the server is down, or stopped while it answered
            self._stop.wait(0.05)
            return
        with source:
            if source.headers.get("content-type", "").startswith("text/event-stream") and source.status == 200:
                self._visit(source, asked)
                self._note_id(source)
        self._stop.wait(self._random.uniform(0.0, 0.05))

    def _render(self, hub: NotifyHub) -> None:
        cursor = hub.cursor()
        if cursor is not None:  # else a page loads its state when its stream is open
            self._rendered = str(cursor), monotonic()
            self._stop.wait(self._random.uniform(0.0, 0.1))

    def _stream_url(self) -> str:
        query = [("detach", self._detach), *(("tenant", each) for each in self.tenants)]
        query += [("channel", each) for each in self.channels]
        if self._buffer is not None:
            query.append(("buffer", str(self._buffer)))
        if self._rendered is not None:
            query.append(("last_event_id", self._rendered[0]))
        return f"{self._random.choice(self._urls)}/events?{urlencode(query)}"

    def _visit(self, source: EventSource, asked: float) -> None:
        if not self._opens(source, asked):
            return
        record, last = self.records[-1], ""
        while not (self._stop.is_set() or self.done.is_set()):
            leaves = self._wants_to_leave()
            for event in source.take(0.0 if leaves else 0.2) if self._history or not leaves else ():
                last = event.type
                self._take(record, event)
            self._note_id(source)
            if leaves:
                source.reset() if self._random.random() < 0.5 else source.close()
                return
            # After what it brought: a short stream may have come in one piece, from its opening to its end.
            if source.ended or source.cut:
                self._judge_the_end(source, record, last)
                return
            self._pause()

    def _opens(self, source: EventSource, asked: float) -> bool:
        """Wait for the opening comment; a refusal has none."""
        try:
            source.wait_for(lambda s: s.parser.blocks or s.ended or s.cut, timeout=15.0)
        except AssertionError:
            return False
        if not (source.comments and source.parser.blocks):
            return False
        self._begin_record(source, asked)
        self._note_id(source)
        if self._last_event_id is None:
            self.records[-1].faults.append("a stream began without an id: no browser could tell that it comes back")
        self.begun.set()
        return True

    def _begin_record(self, source: EventSource, asked: float) -> None:
        number = self._last_event_id or (self._rendered[0] if self._rendered else None)
        if not (self._history and self.records and number):
            # Another worker may be behind the one that was left: what a stream repeats of another is no disorder.
            self._new_record().since = monotonic() if self._rendered is None else self._rendered[1]
        if self._history and number:
            self.records[-1].come_back(asked, number)
        if not self._history and self._last_event_id is not None and not self._starts_with_refresh(source):
            self.records[-1].faults.append("a stream that was resumed did not start with a refresh")

    def _note_id(self, source: EventSource) -> None:
        """Remember the last event id as the engine does."""
        if self._engine == "by the letter":
            # Where a block without an id comes first, the standard's last event id buffer is empty, and so is then the
            # last event id. The others keep the one that they had.
            if source.parser.blocks:
                self._last_event_id = source.last_event_id or None
        elif self._engine == "as Firefox":
            self._last_event_id = source.parser.dispatched_id or self._last_event_id
        else:
            self._last_event_id = source.last_event_id or self._last_event_id

    def _starts_with_refresh(self, source: EventSource) -> bool:
        try:
            source.wait_for(lambda s: s.received or s.ended or s.cut, timeout=15.0)
        except AssertionError:
            return False
        return source.cut or [event.type for event in source.received[:1]] == ["refresh"]

    def _take(self, record: Record, event: SentEvent) -> None:
        if event.type == "refresh":
            record.refresh(monotonic(), f"of a stream, where {self._last_event_id} was the last id")
        elif event.type != "close":
            type = "" if event.type == "message" else event.type
            self._received(record, event.data.encode(), type, event.last_event_id)

    def _judge_the_end(self, source: EventSource, record: Record, last: str) -> None:
        honest = source.ended and last == "close" and source.retry is not None
        if not honest and not self._may_miss_the_farewell and not self._cut_allowed():
            record.faults.append(f"a stream ended without a farewell (ended={source.ended}, last={last!r})")
