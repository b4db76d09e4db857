"""StreamLimiter: how many streams a process and a user may have."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from ..errors import TooManyStreamsError, TooManyStreamsForUserError
from ..fork import renew_in_children

__all__ = ["Place", "StreamLimiter", "hooks_are_installed", "set_server_threads", "thread_cap"]

_server_threads: int | None = None
_told = False


def set_server_threads(threads: int | None) -> None:
    """Tell how many threads the server of this process answers requests with.

    A stream that is not detached keeps its thread, and a request beyond them waits without an
    answer; so every limiter of the process keeps such streams below this number from now on.
    None: no such limit.
    """
    global _server_threads, _told
    _server_threads = threads
    _told = True


def hooks_are_installed() -> bool:
    """Whether `set_server_threads` was called: the server's hooks do, with whatever number."""
    return _told


def thread_cap(reserve: int) -> int | None:
    """How many of the server's threads streams may take; None where there's no limit."""
    if _server_threads is None:
        return None
    # A small pool can't spare the whole reserve, but never gives its last thread away.
    return max(_server_threads - reserve, min(1, _server_threads - 1), 0)


class StreamLimiter:
    """Counts streams, and refuses the one too many.

    At most `max_streams` in the process and `max_streams_per_user` for each user; where the
    server's threads are known, at least `thread_reserve` of them (or all but one, in a small
    pool) stay free for ordinary requests: of the streams that keep their threads, no more are
    let in. Detached ones have no such limit.

    `_lock` guards the counters; it is held for nothing else.
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
        """Begin to count; in a forked child, too, which has none of its parent's streams."""
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
        """Those of them that keep a thread of the server."""
        return self._in_threads

    @property
    def limit(self) -> int:
        """How many may be open in threads: `max_streams`, or what the server's threads allow."""
        cap = thread_cap(self.thread_reserve)
        return self.max_streams if cap is None else min(self.max_streams, cap)

    def acquire(self, user_id: Hashable = None, *, detached: bool = False) -> Place:
        """Count one stream in; calling what is returned counts it out again, once however often called.

        A `user_id` of None has no limit of its own. A `detached` stream needs no thread. Raises
        `TooManyStreamsError` and `TooManyStreamsForUserError`; never waits.
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


class Place:
    """What one stream has; calling it gives the place back."""

    __slots__ = ("_limiter", "detached", "done", "user_id")

    def __init__(self, limiter: StreamLimiter, user_id: Hashable, detached: bool) -> None:
        self.user_id = user_id
        self.detached = detached
        self.done = False
        self._limiter = limiter

    def keep_thread(self) -> None:
        """Have a detached stream's place count as one in a thread, since it stays there.

        Raises `TooManyStreamsError`; the place is what it was then.
        """
        self._limiter._keep_thread(self)

    def __call__(self) -> None:
        self._limiter._release(self)
