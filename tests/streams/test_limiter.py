"""StreamLimiter: caps for the process, for each user, and below the server's threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgfanout.errors import TooManyStreamsError, TooManyStreamsForUserError
from pgfanout.streams import StreamLimiter
from pgfanout.streams import limiter as limiter_module
from pgfanout.streams.limiter import Place, hooks_are_installed, set_server_threads, thread_cap

# Private members: that no count is left shows nowhere else.

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has told its threads, and what a test tells is forgotten after it."""
    monkeypatch.setattr(limiter_module, "_server_threads", None)
    monkeypatch.setattr(limiter_module, "_told", False)


def fill(limiter: StreamLimiter, user_id: Any = None) -> list[Callable[[], None]]:
    """Take every place that there is."""
    taken: list[Callable[[], None]] = []
    while True:
        try:
            taken.append(limiter.acquire(user_id))
        except TooManyStreamsError:
            return taken


def test_a_process_has_5000_streams_and_a_user_10_by_default() -> None:
    limiter = StreamLimiter()
    assert (limiter.max_streams, limiter.max_streams_per_user, limiter.thread_reserve) == (5000, 10, 2)
    assert (limiter.limit, limiter.open) == (5000, 0)


@pytest.mark.parametrize("limits", [(-1, 10), (10, -1)])
def test_a_limit_below_nothing_is_refused(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        StreamLimiter(*limits)


def test_a_reserve_of_no_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="thread_reserve has to be at least 1"):
        StreamLimiter(thread_reserve=0)


def test_the_one_too_many_is_refused_with_the_limit() -> None:
    limiter = StreamLimiter(3)
    assert len(fill(limiter)) == limiter.open == 3
    with pytest.raises(TooManyStreamsError) as caught:
        limiter.acquire()
    assert caught.value.limit == 3
    assert not isinstance(caught.value, TooManyStreamsForUserError)


def test_a_limit_of_nothing_refuses_everyone() -> None:
    assert fill(StreamLimiter(0)) == []
    assert fill(StreamLimiter(5, 0), "ann") == []


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    limiter = StreamLimiter(1)
    limiter.acquire()()
    assert limiter.open == 0
    assert len(fill(limiter)) == 1


def test_a_place_is_given_back_once_however_often_it_is_said() -> None:
    limiter = StreamLimiter(2)
    first, second = fill(limiter)
    first()
    first()
    assert limiter.open == 1
    second()
    assert limiter.open == 0


def test_a_user_has_a_limit_of_their_own() -> None:
    limiter = StreamLimiter(10, 2)
    assert len(fill(limiter, "ann")) == 2
    with pytest.raises(TooManyStreamsForUserError) as caught:
        limiter.acquire("ann")
    assert caught.value.limit == 2
    assert len(fill(limiter, "bob")) == 2


def test_a_refused_user_takes_no_place() -> None:
    limiter = StreamLimiter(10, 1)
    fill(limiter, "ann")
    assert limiter.open == 1


def test_a_user_who_gives_a_place_back_may_take_one_again() -> None:
    limiter = StreamLimiter(10, 1)
    (release,) = fill(limiter, 7)
    release()
    release()
    assert len(fill(limiter, 7)) == 1


def test_who_is_nobody_has_the_limit_of_the_process_alone() -> None:
    assert len(fill(StreamLimiter(20, 2), None)) == 20


def test_a_user_id_of_zero_is_a_user() -> None:
    assert len(fill(StreamLimiter(20, 2), 0)) == 2


def test_a_full_process_is_told_before_a_full_user() -> None:
    limiter = StreamLimiter(1, 1)
    fill(limiter, "ann")
    with pytest.raises(TooManyStreamsError) as caught:
        limiter.acquire("ann")
    assert type(caught.value) is TooManyStreamsError


def test_a_user_without_streams_takes_no_memory() -> None:
    limiter = StreamLimiter()
    for release in [limiter.acquire(user) for user in range(100)]:
        release()
    assert not limiter._open_by_user


def test_a_user_who_gives_one_of_two_places_back_has_the_other_one() -> None:
    limiter = StreamLimiter(10, 2)
    first, _ = fill(limiter, "ann")
    first()
    assert len(fill(limiter, "ann")) == 1


def test_a_user_id_that_cannot_be_counted_takes_no_place() -> None:
    limiter = StreamLimiter()
    with pytest.raises(TypeError):
        limiter.acquire([])  # type: ignore[arg-type]
    assert limiter.open == 0


@pytest.mark.parametrize(
    ("threads", "reserve", "cap"),
    [(8, 2, 6), (8, 1, 7), (4, 2, 2), (3, 2, 1), (2, 2, 1), (2, 50, 1), (8, 8, 1), (1, 1, 0), (1, 2, 0), (100, 2, 98)],
)
def test_streams_leave_the_reserve_or_at_least_one_thread_free(threads: int, reserve: int, cap: int) -> None:
    set_server_threads(threads)
    assert thread_cap(reserve) == cap
    assert len(fill(StreamLimiter(thread_reserve=reserve))) == cap < threads


@pytest.mark.parametrize("threads", [None, 8])
def test_the_servers_hooks_are_known_by_what_they_tell_be_it_no_limit(threads: int | None) -> None:
    before = hooks_are_installed()
    set_server_threads(threads)
    assert (before, hooks_are_installed()) == (False, True)


def test_without_known_threads_there_is_no_cap_by_them() -> None:
    assert thread_cap(2) is None


def test_the_lower_of_both_limits_counts() -> None:
    set_server_threads(8)
    assert StreamLimiter(3).limit == 3
    assert StreamLimiter(100).limit == 6


def test_a_limiter_that_was_made_before_the_server_told_its_threads_obeys_too() -> None:
    limiter = StreamLimiter()
    set_server_threads(4)
    with pytest.raises(TooManyStreamsError) as caught:
        [limiter.acquire() for _ in range(3)]
    assert caught.value.limit == 2


def test_no_place_is_lost_or_doubled_by_many_threads() -> None:
    limiter = StreamLimiter(5, 3)
    together = threading.Barrier(8, timeout=PATIENCE)

    def come_and_go(user: int) -> int:
        together.wait()
        most = 0
        for _ in range(500):
            try:
                release = limiter.acquire(user)
            except TooManyStreamsError:
                continue
            most = max(most, limiter.open)
            release()
            release()
        return most

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(come_and_go, number % 2) for number in range(8)]
        assert 1 <= max(future.result(PATIENCE) for future in futures) <= 5
    assert limiter.open == 0
    assert (len(fill(limiter, 0)), len(fill(limiter, 1))) == (3, 2)


# Detached streams.


def fill_detached(limiter: StreamLimiter, user_id: Any = None) -> list[Place]:
    """Take every place that there is without a thread."""
    taken: list[Place] = []
    while True:
        try:
            taken.append(limiter.acquire(user_id, detached=True))
        except TooManyStreamsError:
            return taken


def test_a_detached_stream_needs_no_thread() -> None:
    set_server_threads(4)
    limiter = StreamLimiter(10)
    assert len(fill_detached(limiter)) == 10
    assert (limiter.open, limiter.in_threads) == (10, 0)


def test_a_single_thread_of_the_server_is_enough_for_detached_streams() -> None:
    set_server_threads(1)
    limiter = StreamLimiter(10)
    assert fill(limiter) == []
    assert len(fill_detached(limiter)) == 10


def test_detached_streams_take_no_place_of_those_in_threads_below_the_limit_of_all() -> None:
    set_server_threads(5)
    limiter = StreamLimiter(10)
    detached = [limiter.acquire(detached=True) for _ in range(6)]
    assert len(fill(limiter)) == 3
    assert (limiter.open, limiter.in_threads) == (9, 3)
    assert [place.detached for place in detached] == [True] * 6


def test_both_kinds_together_have_the_limit_of_the_process() -> None:
    limiter = StreamLimiter(3)
    limiter.acquire()
    limiter.acquire(detached=True)
    limiter.acquire(detached=True)
    for detached in (False, True):
        with pytest.raises(TooManyStreamsError) as caught:
            limiter.acquire(detached=detached)
        assert caught.value.limit == 3


def test_both_kinds_together_have_the_limit_of_their_user() -> None:
    limiter = StreamLimiter(10, 2)
    limiter.acquire("ann")
    limiter.acquire("ann", detached=True)
    for detached in (False, True):
        with pytest.raises(TooManyStreamsForUserError):
            limiter.acquire("ann", detached=detached)
    assert (limiter.open, limiter.in_threads) == (2, 1)


def test_only_streams_in_threads_are_counted_as_such() -> None:
    limiter = StreamLimiter()
    thread, detached = limiter.acquire(), limiter.acquire(detached=True)
    assert (limiter.open, limiter.in_threads) == (2, 1)
    detached()
    detached()
    assert (limiter.open, limiter.in_threads) == (1, 1)
    thread()
    thread()
    assert (limiter.open, limiter.in_threads) == (0, 0)


def test_a_full_pool_of_threads_is_told_with_its_size() -> None:
    set_server_threads(4)
    limiter = StreamLimiter(100)
    fill(limiter)
    with pytest.raises(TooManyStreamsError) as caught:
        limiter.acquire()
    assert caught.value.limit == 2


def test_a_detached_stream_that_stays_in_its_thread_counts_there() -> None:
    limiter = StreamLimiter()
    place = limiter.acquire("ann", detached=True)
    place.keep_thread()
    assert (limiter.open, limiter.in_threads, place.detached) == (1, 1, False)
    place()
    assert (limiter.open, limiter.in_threads) == (0, 0)
    assert not limiter._open_by_user


def test_no_thread_is_kept_that_the_site_needs() -> None:
    set_server_threads(4)
    limiter = StreamLimiter(100)
    place = limiter.acquire(detached=True)
    in_threads = fill(limiter)
    with pytest.raises(TooManyStreamsError) as caught:
        place.keep_thread()
    assert caught.value.limit == 2
    assert (limiter.open, limiter.in_threads, place.detached) == (3, 2, True)
    in_threads[0]()
    place.keep_thread()
    assert (limiter.open, limiter.in_threads) == (2, 2)
    place()
    in_threads[1]()
    assert (limiter.open, limiter.in_threads) == (0, 0)


def test_keeping_a_thread_needs_no_further_place_in_the_process() -> None:
    limiter = StreamLimiter(1, 1)
    place = limiter.acquire("ann", detached=True)
    place.keep_thread()
    assert (limiter.open, limiter.in_threads) == (1, 1)


def test_no_thread_is_lost_or_doubled_by_many_who_keep_theirs() -> None:
    set_server_threads(5)
    limiter = StreamLimiter(100)
    together = threading.Barrier(8, timeout=PATIENCE)

    def come_and_go() -> int:
        together.wait()
        kept = 0
        for _ in range(500):
            place = limiter.acquire(detached=True)
            try:
                place.keep_thread()
                kept += 1
                assert limiter.in_threads <= 3
            except TooManyStreamsError:
                pass
            place()
        return kept

    with ThreadPoolExecutor(8) as pool:
        assert sum(future.result(PATIENCE) for future in [pool.submit(come_and_go) for _ in range(8)]) > 0
    assert (limiter.open, limiter.in_threads) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_none_of_its_parents_streams() -> None:
    limiter = StreamLimiter(2, 1)
    limiter.acquire("ann")
    with limiter._lock:  # as another thread may hold it at that moment
        pid = os.fork()
        if not pid:
            os._exit(limiter.open + limiter.in_threads if limiter.acquire("ann") else 9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2  # that stream alone, which is in a thread
    assert limiter.open == 1
