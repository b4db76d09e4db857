"""StreamLimiter: limits the streams of a process and of each user."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from ..errors import TooManyStreamsError, TooManyStreamsForUserError
from ..fork import renew_in_children
from .endings import Endings, background

__all__ = ["Place", "StreamLimiter", "hooks_are_installed", "set_server_threads", "thread_cap"]

_server_threads: int | None = None
_told = False


def set_server_threads(threads: int | None) -> None:
    """Set how many threads of the server answer requests in this process. None means that there is no limit.

    A stream that is not detached keeps its thread. When all threads are in use, a request waits without an answer. So
    every limiter of the process keeps such streams below this number from now on.
    """
    global _server_threads, _told
    _server_threads = threads
    _told = True


def hooks_are_installed() -> bool:
    """Whether `set_server_threads` was called, which the server's hooks do, with a number or None."""
    return _told


def thread_cap(reserve: int) -> int | None:
    """Return how many of the server's threads streams may keep. None if there is no limit."""
    if _server_threads is None:
        return None
    # A small pool can't spare the whole reserve, but always spares one thread.
    return max(_server_threads - reserve, min(1, _server_threads - 1), 0)


class StreamLimiter:
    """Counts streams, and refuses streams beyond its limits.

    A process may have `max_streams`, and each user `max_streams_per_user`. If the number of the server's threads is
    known, streams that keep their threads leave at least `thread_reserve` of them to ordinary requests. In a small pool
    they leave all but one. Detached streams need no threads, so this limit does not apply to them.

    `_lock` guards the counters. It is held for nothing else.
    """

    def __init__(
        self,
        max_streams: int = 5000,
        max_streams_per_user: int = 10,
        *,
        thread_reserve: int = 2,
    ) -> None:
        if max_streams < 0 or max_streams_per_user < 0:
            raise ValueError("the limits are numbers of streams, 0 or more")
        if thread_reserve < 1:
            raise ValueError("thread_reserve has to be at least 1")
        self.max_streams = max_streams
        self.max_streams_per_user = max_streams_per_user
        self.thread_reserve = thread_reserve
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        """Begin to count at zero. Called in a forked child, too: it has none of its parent's streams."""
        self._lock = threading.Lock()
        self._open = 0
        self._in_threads = 0
        self._open_by_user: Counter[Hashable] = Counter()

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return self._open

    @property
    def in_threads(self) -> int:
        """Open streams that keep a thread of the server."""
        return self._in_threads

    @property
    def limit(self) -> int:
        """The most streams that may keep a thread: `max_streams`, or what the server's threads allow."""
        cap = thread_cap(self.thread_reserve)
        return self.max_streams if cap is None else min(self.max_streams, cap)

    def acquire(self, user_id: Hashable = None, *, detached: bool = False) -> Place:
        """Count one more stream. Call the `Place` that is returned when the stream ends. Further calls do nothing.

        With a `user_id` of None there is no limit for the user. A `detached` stream needs no thread. Raise
        `TooManyStreamsError` or `TooManyStreamsForUserError`. Never block.
        """
        limit = self.limit
        with self._lock:
            if not detached:
                self._check_threads(limit)
            if self._open >= self.max_streams:
                raise TooManyStreamsError(self.max_streams)
            if user_id is not None:
                if self._open_by_user[user_id] >= self.max_streams_per_user:
                    raise TooManyStreamsForUserError(self.max_streams_per_user)
                self._open_by_user[user_id] += 1
            self._open += 1
            self._in_threads += not detached
        return Place(self, user_id, detached)

    def _check_threads(self, limit: int) -> None:
        if self._in_threads >= limit:
            raise TooManyStreamsError(limit)

    def _keep_thread(self, place: Place) -> None:
        limit = self.limit
        with self._lock:
            self._check_threads(limit)
            self._in_threads += 1
            place.detached = False

    def _release(self, place: Place) -> None:
        with self._lock:
            if place.done:
                return
            place.done = True
            self._open -= 1
            self._in_threads -= not place.detached
            if place.user_id is not None:
                self._open_by_user[place.user_id] -= 1
                if not self._open_by_user[place.user_id]:
                    del self._open_by_user[place.user_id]


class Place(Endings):
    """One stream's place among those that a limiter allows. Call it when the stream has ended: it gives the place back
    and calls the functions that were appended, in the background if the stream is detached."""

    __slots__ = ("_limiter", "detached", "done", "user_id")

    def __init__(self, limiter: StreamLimiter, user_id: Hashable, detached: bool) -> None:
        super().__init__()
        self.user_id = user_id
        self.detached = detached
        self.done = False
        self._limiter = limiter

    def keep_thread(self) -> None:
        """Count a detached stream as one that keeps its thread.

        Raise `TooManyStreamsError` if no more streams may keep a thread. The place is then unchanged.
        """
        self._limiter._keep_thread(self)

    def __call__(self) -> None:
        self._limiter._release(self)
        if not self.detached:
            self.run()
        elif self._functions:
            background.call(self.run)
