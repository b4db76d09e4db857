"""Replay: pages of the log for connections whose next events their feeds have dropped. For the streamer's thread."""

from __future__ import annotations

from ...delivery.log import Page
from ...delivery.reader import Question
from ...event import REFRESH_EVENT, Event
from .. import sse
from .connection import Connection
from .mailbox import Mailbox

__all__ = ["Replay"]


class Replay:
    """Asks for pages, and puts what they have into their connections."""

    def __init__(self, mailbox: Mailbox) -> None:
        """Answers come with the mailbox."""
        self._mailbox = mailbox
        self._last: tuple[Page | None, int, bytes] = (None, 0, b"")

    def ask(self, connection: Connection) -> bool:
        """Ask for the page that a connection needs, unless it has asked already. Return whether it needs one."""

        def answer(question: Question, page: Page | None) -> None:
            self._mailbox.put_answer(connection, question, page)

        def wanted(question: Question) -> bool:
            return connection.open and connection.reader.asked is question

        if connection.reader.behind:
            connection.feed.ask(connection.reader, answer, wanted)
        return connection.reader.behind

    def take(self, connection: Connection, question: Question, page: Page | None) -> None:
        """Have a page written next. An answer that comes too late is dropped."""
        events = connection.feed.take(connection.reader, question, page)
        if events:
            connection.put(self._framed(page, events))

    def _framed(self, page: Page | None, events: list[Event]) -> bytes:
        # Connections that come back together get the same page, and share its bytes.
        if events[0] is REFRESH_EVENT:
            return sse.encode_all(events)
        if self._last[0] is not page or self._last[1] != len(events):
            self._last = page, len(events), sse.encode_all(events)
        return self._last[2]
