"""Streamer: the one thread that writes all detached streams of a process."""

from __future__ import annotations

import math
import os
import threading
from contextlib import suppress

from .connection import Connection
from .loop import Loop
from .mailbox import Mailbox

__all__ = ["Streamer", "streamer"]

_ADMISSION_TIME = 0.003
"""Seconds for arrivals in one turn; one more may begin in the last moment of it."""


class Streamer:
    """Takes connections over and writes their streams, until they end.

    Its thread starts with the first stream and ends with the last. What it works on, the loop, is that thread's own.
    Others put something into the `mailbox`, which wakes it.

    News come before arrivals: those are admitted for `_ADMISSION_TIME` at most between two looks at the sockets and
    the feeds, and the thread does not sleep while some are left. So a crowd holds up the streams that are there for
    some milliseconds, and no thread of the server has to wait for it.

    Every method may be called from any thread. `_lock` guards the making of the loop.
    """

    mailbox: Mailbox
    _loop: Loop | None

    def __init__(self) -> None:
        self._renew()

    @property
    def open(self) -> int:
        """How many streams it has."""
        loop = self._loop
        return len(self.mailbox.arrivals) + (len(loop.connections) if loop is not None else 0)

    def prepare(self) -> None:
        """Have the descriptors that it needs itself. Raises `OSError` when there are none left."""
        self.mailbox.prepare()
        with self._lock:
            if self._loop is None:
                self._loop = Loop(self.mailbox)

    def adopt(self, connection: Connection) -> None:
        """Take a connection over; `prepare` was called before. Never waits.

        Raises `OSError` or `RuntimeError` when the system has no memory or no thread for it; the connection is still
        the caller's then.
        """
        assert self._loop is not None
        poller = self._loop.poller
        poller.watch(connection)
        try:
            self.mailbox.put_arrival(connection)
        except BaseException:
            poller.unwatch(connection)
            raise

    def close_left(self, timeout: float) -> None:
        """Have the connections closed whose clients have left by now. Wait for it, `timeout` seconds at most."""
        done = threading.Event()
        if self.mailbox.call(done.set):
            done.wait(timeout)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait, `timeout` seconds at most, until all streams have ended; whether they have."""
        thread = self.mailbox.thread
        if thread is not None:
            thread.join(timeout)
        return not self.open

    def cut(self, timeout: float) -> None:
        """End all connections as they are, for clients that don't take a proper end; waits for it,
        `timeout` seconds at most."""
        loop = self._loop
        if loop is not None and self.mailbox.call(loop.cut):
            self.wait_until_empty(timeout)

    def abandon(self) -> None:
        """In a forked child, where its thread does not exist: close the child's copies of the descriptors."""
        if self._loop is not None:
            self._loop.abandon()
        self.mailbox.abandon()
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._loop = None
        self.mailbox = Mailbox(self._run)

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        while loop.connections or not self.mailbox.leave():
            try:
                self._turn(loop)
            except Exception as error:
                self._give_up(loop, error)

    def _give_up(self, loop: Loop, error: Exception) -> None:
        """After a failure nobody knows what was written and what not: clients that come back are told to refresh."""
        loop.log_failure("the streamer failed; all streams are cut", error)
        with suppress(Exception):
            loop.cut(error)

    def _turn(self, loop: Loop) -> None:
        # Taken before the sockets are looked at: a call sees what had happened, and what had come, when it was made.
        calls = self.mailbox.take_calls()
        loop.admit_arrivals(math.inf if calls else _ADMISSION_TIME)
        # Without connections the thread is about to end: an admission may have ended the last one.
        events = loop.poller.wait(0.0 if calls or not loop.connections else self.mailbox.sleep(loop.pause()))
        self.mailbox.awake()
        loop.handle(events)
        loop.broadcast()
        loop.keep_alive()
        for call in calls:
            call()


streamer = Streamer()
"""The process's own. Making it starts nothing."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=streamer.abandon)
