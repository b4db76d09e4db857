"""What PostgreSQL's sessions wait for, by looking again and again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

__all__ = ["Waits", "milliseconds"]

_INTERVAL = 0.1  # a look costs a millisecond of a CPU that the writers want
_EVENTS = """
SELECT CASE WHEN wait_event_type IN ('Lock', 'IO') THEN wait_event ELSE '' END, count(*)::int
FROM pg_stat_activity WHERE application_name = %s GROUP BY 1
"""


def milliseconds(share: float, writers: int, rate: float) -> float:
    """The mean time that a transaction waits: `share` of the looks at a writer found it waiting."""
    return 1000 * share * writers / rate


class Waits:
    """Counts what the sessions of an application wait for. Looks with fewer than `sessions` of them don't count."""

    def __init__(self, application: str, sessions: int) -> None:
        self._application = application
        self._sessions = sessions
        self._seen: Counter[str] = Counter()

    def watch(self, connection: psycopg.Connection[Any], until: Callable[[], bool]) -> None:
        """Look every 100 ms, until told to stop."""
        while not until():
            self.add(dict(connection.execute(_EVENTS, (self._application,)).fetchall()))
            time.sleep(_INTERVAL)

    def add(self, look: dict[str, int]) -> None:
        """One look: how many sessions wait for what, "" for no lock and no disk."""
        if sum(look.values()) == self._sessions:
            self._seen.update(look)

    def share(self, event: str) -> float:
        """The part of a session's time that it waits for this; 0 when nothing was seen."""
        return self._seen[event] / total if (total := self._seen.total()) else 0.0
