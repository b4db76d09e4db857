"""Threads come to their turn in the order of their arrival, whatever is raised on the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from pgfanout.backends.postgres.line import Line
from tests.support.wait import eventually

# Private members: how many have arrived shows nowhere else.

LONG = 20.0


def joined(line: Line) -> threading.Lock:
    ticket = threading.Lock()
    line.join(ticket)
    return ticket


def test_the_first_one_is_first_until_it_leaves() -> None:
    line = Line()
    one, other = joined(line), joined(line)
    assert (line.is_first(one), line.is_first(other)) == (True, False)
    line.leave(one)
    assert line.is_first(other)
    line.leave(other)
    assert not line
    assert not line.is_first(other)


def test_leaving_and_waking_can_be_repeated() -> None:
    line = Line()
    line.wake_first()
    one, other = joined(line), joined(line)
    for _ in range(2):
        line.wake_first()
        line.leave(one)
    assert one.acquire(blocking=False)
    line.wake_first()
    line.wake_first()
    assert other.acquire(blocking=False)
    assert not other.acquire(blocking=False)


def test_a_thread_knows_that_it_is_in_the_line() -> None:
    line = Line()
    assert not line.has_this_thread()
    ticket = joined(line)
    with ThreadPoolExecutor(1) as other:
        assert not other.submit(line.has_this_thread).result(LONG)
    assert line.has_this_thread()
    line.leave(ticket)
    assert not line.has_this_thread()


def test_threads_pass_in_the_order_of_their_arrival() -> None:
    line = Line()
    mine = joined(line)
    passed: list[int] = []

    def wait(number: int) -> None:
        ticket = joined(line)
        while not line.is_first(ticket):
            ticket.acquire(timeout=LONG)
        passed.append(number)
        line.leave(ticket)
        line.wake_first()

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        eventually(lambda: len(line._tickets) == len(threads) + 1)
    line.leave(mine)
    line.wake_first()
    for thread in threads:
        thread.join(LONG)
    assert passed == list(range(8))
