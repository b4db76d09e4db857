"""What scenarios share: their names, how a run is connected, and what may go wrong in one."""

from __future__ import annotations

import time

import psutil

from .measurement import opening_figures
from .world import Run

__all__ = [
    "ASYNCIO_STREAMS",
    "BARE",
    "BURST",
    "COMEBACK",
    "FAIRNESS",
    "FULL_RATE",
    "HISTORY",
    "LIBRARY",
    "MANY_WRITERS",
    "NEWCOMERS",
    "NOTIFY",
    "ORDINARY",
    "PATIENCE",
    "QUIET",
    "STEADY",
    "THREAD_PATH",
    "TOPICS",
    "WRITERS",
    "Trouble",
    "connect",
]

STEADY = "steady"
BURST = "burst"
FULL_RATE = "full rate"
ORDINARY = "ordinary requests"
THREAD_PATH = "thread path"
WRITERS = "writers"
COMEBACK = "coming back"
FAIRNESS = "fairness"
TOPICS = "many topics"

BARE = "bare notifies"
"""Takes part at full rate, and serves nobody."""

HISTORY, NOTIFY, LIBRARY = "history", "notify", ", library"
"""What writers publish with, and what is added to its name when they do it by the library's statement."""

NEWCOMERS = "newcomers"
"""As many browsers at once, who have missed nothing."""

MANY_WRITERS = 16
"""Where the writers wait for each other."""

ASYNCIO_STREAMS = 5000
"""Where detached and asyncio are compared."""

QUIET = 1.0
"""Seconds without events, before memory is looked at and between windows."""

PATIENCE = 60.0
"""Seconds that the last event of a window may take."""

Trouble = (RuntimeError, OSError, psutil.Error)
"""What makes a measurement fail, and the run go on."""


def connect(run: Run) -> dict[str, float]:
    """Open the streams, and see what they take of memory while nothing is sent."""
    before = run.server.worker_rss()
    opening = run.connect()
    time.sleep(QUIET)
    memory = (run.server.worker_rss() - before) / opening.streams
    return {**opening_figures(opening), "memory": memory, "rss": run.server.rss() / 1024}
