"""Mutations of what makes a history, each so that a gap is not filled, or filled with too much."""

from __future__ import annotations

from .mutation import Mutation

__all__ = ["WITH_HISTORY"]

_READER = "delivery/reader.py"
_READERS_TAIL = "delivery/tail.py"
_INTAKE = "delivery/intake.py"
_REPLAY = "delivery/replay.py"
_LOG_TABLE = "backends/postgres/history/table.py"
_FUNCTIONS = "backends/postgres/history/sql/functions.sql"

_LOST_COMMITS = ("backup-restored", "standby-promoted")

WITH_HISTORY = tuple(
    Mutation(2, what, module, old, new, faults, history=True)
    for what, module, old, new, faults in (
        (
            "a stream that has read the log joins its feed one event too late",
            _READERS_TAIL,
            "                return self.end_position - back\n",
            "                return self.end_position - back + 1\n",
            (),
        ),
        (
            "a stream that has read the log joins its feed one event too early",
            _READERS_TAIL,
            "0 < number_of(event) <= number:",
            "0 < number_of(event) < number:",
            (),
        ),
        (
            "a UUID that is published in upper case is another tenant",
            _FUNCTIONS,
            "THEN lower(tenant)",
            "THEN tenant",
            (),
        ),
        (
            "a page for several tenants has the first one's events alone",
            _LOG_TABLE,
            "[topic._asdict() for topic in topics]",
            "[topic._asdict() for topic in topics if topic.tenant == topics[0].tenant]",
            (),
        ),
        (
            "a stream joins a feed that lacks what comes next",
            _READER,
            "if not 0 <= tail.floor <= self.number <= tail.offered:",
            "if not self.number <= tail.offered:",
            (),
        ),
        (
            "a new session fills nothing",
            _INTAKE,
            "            return self._fill(ends.last)\n",
            "            self._log.begun = self._log.offered = ends.last\n            return True\n",
            ("listeners-terminated", "connections-cut"),
        ),
        (
            "what was offered is read once more",
            _INTAKE,
            "news = self._session.news(self._log.offered, last)",
            "news = self._session.news(self._log.offered - 1, last)",
            (),
        ),
        (
            "a position that the log does not know is filled from",
            _INTAKE,
            "session.knows(before)",
            "True",
            _LOST_COMMITS,
        ),
        (
            "a number that lies in the log's range is taken for known",
            _LOG_TABLE,
            "and (known or vouched)):",
            "):",
            (*_LOST_COMMITS, "number-invented"),
        ),
        (
            "a stream joins its feed with a number that nobody vouches for",
            _READER,
            "if not self.known and not tail.vouches_for(self.number):",
            "if False:",
            ("number-invented",),
        ),
        (
            "a hub believes to have offered what it begins to offer",
            _INTAKE,
            "        if event is not None:\n",
            "        self._log.offered = number; time.sleep(0.001)\n        if event is not None:\n",
            (),
        ),
        (
            "a page is not cut where this process has come to",
            _REPLAY,
            "until = min(self.until, last)",
            "until = self.until",
            (*_LOST_COMMITS, "listeners-terminated", "past-the-log"),
        ),
        (
            "a kept page is taken for more than it has",
            _REPLAY,
            "after <= question.after < kept.until",
            "after <= question.after",
            (),
        ),
        (
            "a page begins with what the reader has",
            _LOG_TABLE,
            "AND number > %s ORDER BY number LIMIT %s\n        ) AS e\n        ORDER",
            "AND number >= %s ORDER BY number LIMIT %s\n        ) AS e\n        ORDER",
            (),
        ),
        (
            "a part of what was missed is taken for all of it",
            _LOG_TABLE,
            "events, len(events) == _NEWS_ROWS)",
            "events, False)",
            ("network-frozen", "connections-refused"),
        ),
        (
            "what had no room is not known to be missing",
            _READER,
            "            self._fall_behind()\n",
            "            self.position = tail.first_position\n",
            (),
        ),
        (
            "what is queued goes out again after the pages that had it",
            _READER,
            "max(self.had, tail.position_after(self.number))",
            "max(self.had, tail.first_position)",
            (),
        ),
        (
            "a stream begins with the number to come, before it has replayed",
            "streams/detached/stream.py",
            "sse.opening(resumed, number=reader.number)",
            "sse.opening(resumed, number=feed.begun)",
            (),
        ),
        (
            "a stream that replays tells no id",
            "streams/sse.py",
            'b": open\\nid: %b\\n%b" % (start, encode',
            'b": open\\n%b" % (encode',
            (),
        ),
        (
            "a browser's number is not asked for",
            "streams/endpoint.py",
            "after = numbered(asked) if self.hub.has_history and not refresh_first else 0",
            "after = 0",
            (),
        ),
        (
            "a stream that was behind gets what another server's log has before it is told",
            _READER,
            "tail.gap > self.position:\n            events",
            "False:\n            events",
            _LOST_COMMITS,
        ),
        (
            "a forged number moves the position",
            _INTAKE,
            "                self._take_stray(text)\n            elif",
            "                self._log.offered = max(number, self._log.offered)\n            elif",
            ("numbers-forged",),
        ),
        (
            "an event past the log is delivered",
            _INTAKE,
            "self._dispatcher.take_unlogged(topic)",
            "self._dispatcher.offer(topic, event)",
            ("past-the-log",),
        ),
        (
            "an event past the log is told to nobody",
            "delivery/dispatcher.py",
            "        self.note_gap(topic)\n",
            "",
            ("past-the-log",),
        ),
        (
            "events past the log are told as often as they come",
            "delivery/dispatcher.py",
            "self._clock() + _PERIOD",
            "0.0",
            ("past-the-log", "numbers-forged"),
        ),
        (
            "an event past the log is told to everyone",
            "delivery/dispatcher.py",
            "self._waiting.update(self.registry.of(topic))",
            "self._waiting.update(self.registry.all())",
            ("past-the-log", "numbers-forged"),
        ),
        (
            "more than one reader may have missed makes everyone refresh",
            _INTAKE,
            "                return self._skip(last)\n",
            "                self._refresh(last)\n                return False\n",
            ("bulk-import",),
        ),
        (
            "a truncation does not move the mark",
            _FUNCTIONS,
            "pruned_to = greatest(pruned_to, last), rows = 0;",
            "rows = 0;",
            ("log-truncated",),
        ),
        (
            "a removal of what all have makes everyone refresh",
            _INTAKE,
            "if news.pruned_to > self._log.offered:",
            "if news.pruned_to >= self._log.offered:",
            ("log-truncated", "tenant-deleted"),
        ),
        (
            "numbers are drawn before it is a transaction's turn",
            _FUNCTIONS,
            "CASE WHEN pg_advisory_xact_lock(@lock@) IS NOT NULL THEN",
            "CASE WHEN true THEN",
            (),
        ),
        (
            "a deletion by hand leaves the log's mark where it was",
            _FUNCTIONS,
            "UPDATE @schema@.log SET pruned_to = last WHERE pruned_to < last;",
            "NULL;",
            ("tenant-deleted",),
        ),
    )
)
