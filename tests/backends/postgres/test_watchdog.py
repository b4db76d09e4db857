"""The watchdog cuts what does not answer in time, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from pgfanout.backends.postgres import watchdog as module
from pgfanout.backends.postgres.watchdog import Watchdog

LONG = 20.0

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection and its other end."""
    here, there = socket.socketpair()
    there.settimeout(LONG)
    with here, there:
        yield here, there


@pytest.fixture
def other_pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    there.settimeout(LONG)
    with here, there:
        yield here, there


def is_cut(pair: Pair) -> bool:
    """Whether the other end reads the end of it. Waits for that."""
    return pair[1].recv(1) == b""


def is_open(pair: Pair) -> bool:
    pair[0].sendall(b"!")
    return pair[1].recv(1) == b"!"


def test_a_block_that_takes_longer_than_its_limit_loses_the_connection(pair: Pair) -> None:
    watchdog = Watchdog()
    with watchdog.watch(pair[0].fileno()):
        with watchdog.limit(0.01):
            assert is_cut(pair)
            assert watchdog.expired
        assert watchdog.expired


def test_a_block_that_ends_in_time_leaves_no_deadline_behind(pair: Pair) -> None:
    watchdog = Watchdog()
    with watchdog.watch(pair[0].fileno()):
        for _ in range(2000):
            with watchdog.limit(LONG):
                pass
        assert vars(watchdog)["_deadline"] is None
        with watchdog.limit(LONG):
            with watchdog.limit(2 * LONG):
                pass
            assert vars(watchdog)["_deadline"] is not None, "the outer limit holds again"
        assert is_open(pair)
    assert not watchdog.expired


def test_the_outer_of_two_limits_holds_within_the_inner(pair: Pair) -> None:
    watchdog = Watchdog()
    with watchdog.watch(pair[0].fileno()), watchdog.limit(0.01), watchdog.limit(LONG):
        assert is_cut(pair)


def test_a_limit_at_the_end_of_its_block_has_cut_or_it_has_not(pair: Pair) -> None:
    """It never cuts after the block: what comes next would be cut for what was before."""
    for _ in range(300):
        here, there = socket.socketpair()
        with here, there:
            watchdog = Watchdog()
            with watchdog.watch(here.fileno()):
                with watchdog.limit(0.0002):
                    threading.Event().wait(0.0002)
                expired = watchdog.expired
                there.setblocking(False)
                if expired:
                    assert there.recv(1) == b""
                else:
                    with pytest.raises(BlockingIOError):
                        there.recv(1)
            assert watchdog.expired is expired


def test_a_limit_cuts_the_second_of_two_connections_and_stop_cuts_both(pair: Pair, other_pair: Pair) -> None:
    watchdog = Watchdog()
    with watchdog.watch(pair[0].fileno()):
        with watchdog.watch_too(other_pair[0].fileno()), watchdog.limit(0.01):
            assert is_cut(other_pair)
        assert is_open(pair)
        watchdog.stop()
        assert is_cut(pair)


def test_what_is_watched_after_a_stop_is_cut_at_once(pair: Pair, other_pair: Pair) -> None:
    watchdog = Watchdog()
    watchdog.stop()
    with watchdog.watch(pair[0].fileno()), watchdog.watch_too(other_pair[0].fileno()):
        assert is_cut(pair)
        assert is_cut(other_pair)


def test_a_thread_that_can_not_be_started_leaves_nothing_open(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start_thread", refuse)
    watchdog = Watchdog()
    with pytest.raises(RuntimeError), watchdog.watch(pair[0].fileno()):
        pass
    pair[0].close()
    assert is_cut(pair)


class Clock:
    """In place of the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_limit_begins_anew_with_each_extension_and_ends_at_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watchdog, deadlines = Clock(), Watchdog(), []
    monkeypatch.setattr(module, "time", clock)
    with watchdog.limit(10.0, longest=25.0):
        for clock.now in (0.0, 8.0, 17.0, 24.0, 30.0):
            watchdog.extend()
            deadlines.append(vars(watchdog)["_deadline"])
    assert deadlines == [10.0, 18.0, 25.0, 25.0, 25.0]
    watchdog.extend()
    assert vars(watchdog)["_deadline"] is None, "there is nothing to extend outside of a block"


def test_an_extension_goes_beyond_no_limit_that_has_none_and_no_outer_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watchdog = Clock(), Watchdog()
    monkeypatch.setattr(module, "time", clock)
    with watchdog.limit(10.0):
        clock.now = 5.0
        watchdog.extend()
        assert vars(watchdog)["_deadline"] == 10.0
        with watchdog.limit(3.0, longest=60.0):
            clock.now = 7.5
            watchdog.extend()
            assert vars(watchdog)["_deadline"] == 10.0
        assert vars(watchdog)["_deadline"] == 10.0


def test_a_connection_that_is_extended_all_the_time_is_cut_in_the_end(pair: Pair) -> None:
    watchdog = Watchdog()
    with watchdog.watch(pair[0].fileno()), watchdog.limit(0.005, longest=0.02):
        while not watchdog.expired:
            watchdog.extend()
        assert is_cut(pair)
