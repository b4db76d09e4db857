"""The queue of a subscription with a log: nothing is lost, doubled or out of order, whenever the log answers."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pgfanout.delivery.backlog import Backlog
from pgfanout.event import CLOSE_EVENT, REFRESH_EVENT, Event

from ..support.logs import TOPICS, MemoryLog, logged
from ..support.wait import eventually

# Private members: that a thread waits, and what is counted as waiting, shows nowhere else.

PATIENCE = 20.0


class Reader:
    """A log, a backlog that follows it, and the listener between them."""

    def __init__(
        self, size: int = 2, *, refill: bool = True, after: int | None = None, known: int = 0, room: int = 1000
    ) -> None:
        self.log = MemoryLog(refill=refill)
        for number in range(1, known + 1):
            self.log.commit(number)
        self.log.begun = self.log.offered = known
        self.backlog = Backlog(size, None, self.log, TOPICS, room)
        self.backlog.begin(after)

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            event = self.log.commit(number)
            self.log.begun = number
            self.backlog.offer(event)
            self.log.offered = number

    def drain(self) -> list[Event]:
        """Everything there is, with as many answers as that takes."""
        events: list[Event] = []
        while True:
            try:
                events.append(self.backlog.get(timeout=0))
            except queue.Empty:
                if not self.log.answer():
                    return events


def test_what_has_room_is_not_asked_for() -> None:
    reader = Reader()
    reader.offer(1, 2)
    assert reader.drain() == [logged(1), logged(2)]
    assert reader.log.replays == 0


def test_what_had_no_room_is_read_again() -> None:
    reader = Reader(2)
    reader.offer(*range(1, 10))
    assert reader.drain() == [logged(number) for number in range(1, 10)]
    assert reader.log.replays == 1


def test_what_had_no_room_in_bytes_is_read_again() -> None:
    reader = Reader(100, room=5)
    reader.offer(*range(1, 21))
    assert held(reader) <= 5
    assert reader.drain() == [logged(number) for number in range(1, 21)]


def test_an_event_above_the_limit_is_held_alone_and_those_before_it_are_read_again() -> None:
    reader = Reader(100, room=5)
    reader.offer(1, 2, 1_000_000_000, 1_000_000_001)
    assert list(reader.backlog.queue) == [logged(1_000_000_001)]
    assert reader.drain() == [logged(number) for number in (1, 2, 1_000_000_000, 1_000_000_001)]


def test_a_refresh_needs_no_room_in_bytes() -> None:
    reader = Reader(2, room=5)
    reader.offer(1_000_000_000)
    reader.backlog.offer(REFRESH_EVENT)
    assert reader.drain() == [logged(1_000_000_000), REFRESH_EVENT]
    assert reader.log.replays == 0


def test_without_refilling_what_had_no_room_in_bytes_is_one_refresh() -> None:
    reader = Reader(100, refill=False, room=5)
    reader.offer(*range(1, 7))
    assert reader.drain() == [REFRESH_EVENT]


def held(reader: Reader) -> int:
    """The bytes of the payloads that wait."""
    return sum(len(event.payload) for event in reader.backlog.queue if event is not REFRESH_EVENT)


def test_a_reader_that_takes_nothing_causes_no_reading() -> None:
    reader = Reader(2)
    reader.offer(*range(1, 100))
    assert not reader.log.asked
    assert len(reader.backlog.queue) == 2


def test_it_begins_after_a_number_that_was_long_ago() -> None:
    reader = Reader(after=4, known=10)
    reader.offer(11)
    assert reader.drain() == [logged(number) for number in range(5, 12)]


def test_it_begins_after_the_last_number_without_asking() -> None:
    reader = Reader(after=10, known=10)
    reader.offer(11)
    assert reader.drain() == [logged(11)]
    assert reader.log.replays == 0


def test_a_number_that_is_ahead_of_this_process_waits_until_it_is_not() -> None:
    reader = Reader(known=10)
    for number in (11, 12, 13):
        reader.log.commit(number)  # other processes have had them
    backlog = Backlog(2, None, reader.log, TOPICS)
    backlog.begin(12)
    with pytest.raises(queue.Empty):
        backlog.get(timeout=0)
    assert not reader.log.answer()
    for number in (11, 12, 13):
        reader.log.begun = number
        backlog.offer(logged(number))
        reader.log.offered = number
    assert reader.log.answer()
    assert backlog.get(timeout=0) == logged(13)


@pytest.mark.parametrize("after", [3, 99])
def test_a_number_that_the_log_does_not_know_is_a_refresh_and_then_it_goes_on(after: int) -> None:
    reader = Reader(after=after, known=10)
    reader.log.pruned_to = 4
    reader.offer(11)
    assert reader.drain() == [REFRESH_EVENT, logged(11)]


def test_what_was_pruned_before_it_was_read_is_a_refresh() -> None:
    reader = Reader(2)
    reader.offer(*range(1, 10))
    reader.log.pruned_to = 5
    assert reader.drain() == [REFRESH_EVENT, logged(8), logged(9)]
    reader.offer(10)
    assert reader.drain() == [logged(10)]


def test_an_idle_reader_is_not_too_old_when_it_falls_behind() -> None:
    reader = Reader(2, known=10)
    for number in range(11, 1000):
        reader.log.commit(number, ours=False)
    reader.log.begun = reader.log.offered = reader.log.pruned_to = 999
    reader.offer(1000, 1001, 1002, 1003)
    assert reader.drain() == [logged(number) for number in range(1000, 1004)]


def test_without_refilling_a_full_queue_is_one_refresh() -> None:
    reader = Reader(2, refill=False)
    reader.offer(1, 2, 3, 4)
    assert reader.drain() == [REFRESH_EVENT, logged(4)]


def test_without_refilling_what_was_missed_before_is_replayed_all_the_same() -> None:
    reader = Reader(2, refill=False, after=1, known=10)
    reader.offer(11, 12, 13, 14)
    assert reader.drain() == [logged(number) for number in range(2, 15)]


def test_an_event_without_a_number_can_not_be_read_again() -> None:
    reader = Reader(2)
    plain = Event("orders", b'"plain"')
    reader.backlog.offer(plain)
    reader.offer(1)
    assert reader.drain() == [plain, logged(1)]
    reader.backlog.offer(plain)
    reader.offer(2, 3)
    assert reader.drain() == [REFRESH_EVENT, logged(2), logged(3)]


def skip(reader: Reader, *numbers: int) -> None:
    """Events that are in the log, and that the process goes past without offering them."""
    for number in numbers:
        reader.log.commit(number)
    before, reader.log.begun = reader.log.offered, numbers[-1]
    reader.backlog.skip(before, numbers[-1])
    reader.log.offered = numbers[-1]


@pytest.mark.parametrize("queued", [0, 1, 2, 5])
def test_what_the_hub_skips_is_read_in_the_log(queued: int) -> None:
    reader = Reader(2)
    reader.offer(*range(1, queued + 1))
    skip(reader, *range(queued + 1, 20))
    reader.offer(20)
    assert reader.drain() == [logged(number) for number in range(1, 21)]


def test_a_refresh_that_waits_stands_for_what_the_hub_skips_as_well() -> None:
    reader = Reader(4)
    reader.offer(1)
    reader.backlog.offer(REFRESH_EVENT)
    reader.offer(2)
    skip(reader, 3, 4)
    reader.offer(5)
    assert reader.drain() == [REFRESH_EVENT, logged(5)]


def test_one_that_waits_asks_for_what_the_hub_skips() -> None:
    reader = Reader(2)
    got: list[Event] = []
    thread = threading.Thread(target=lambda: got.append(reader.backlog.get(timeout=PATIENCE)))
    thread.start()
    eventually(lambda: reader.backlog._waiting == 1)
    skip(reader, 1, 2, 3)
    while thread.is_alive():
        reader.log.answer()
        thread.join(0.001)
    assert got == [logged(1)]


def test_what_the_hub_skips_is_nothing_to_one_that_has_ended() -> None:
    reader = Reader(2)
    reader.backlog.end(drop=False)
    skip(reader, 1, 2, 3)
    assert reader.backlog.get(timeout=0) is CLOSE_EVENT


@pytest.mark.parametrize("drop", [True, False])
def test_one_that_has_ended_wants_no_answer(drop: bool) -> None:
    reader = Reader(after=4, known=10)
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    [(*_, wanted)] = reader.log.asked
    assert wanted()
    reader.backlog.end(drop=drop)
    assert not wanted()


def test_a_number_from_outside_is_looked_up_and_one_of_the_log_is_not() -> None:
    reader = Reader(2, after=4, known=10)
    reader.log.page_size = 1
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    assert [known for _, known, *_ in reader.log.asked] == [False]
    reader.log.answer()
    assert reader.backlog.get(timeout=0) == logged(5)
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    assert [(after, known) for after, known, *_ in reader.log.asked] == [(5, True)]
    slow = Reader(1)
    slow.offer(1, 2)
    with pytest.raises(queue.Empty):
        slow.backlog.get(timeout=0)
    assert [(after, known) for after, known, *_ in slow.log.asked] == [(0, True)]


def test_where_the_log_lacks_some_events_also_the_last_number_is_a_question() -> None:
    log = MemoryLog(complete=False)
    log.commit(1)
    log.begun = log.offered = 1
    backlog = Backlog(2, None, log, TOPICS)
    backlog.begin(1)
    with pytest.raises(queue.Empty):
        backlog.get(timeout=0)
    assert [(after, known) for after, known, *_ in log.asked] == [(1, False)]


def test_a_refresh_stands_for_everything_that_was_to_come() -> None:
    reader = Reader(2)
    reader.offer(*range(1, 10))
    reader.backlog.offer(REFRESH_EVENT)
    reader.offer(10)
    assert reader.drain() == [REFRESH_EVENT, logged(10)]


def test_a_refresh_that_is_queued_behind_events_comes_before_anything_that_the_log_has_later() -> None:
    """The log may be another server's by then."""
    reader = Reader(3)
    reader.offer(1, 2)
    reader.backlog.offer(REFRESH_EVENT)
    reader.offer(3, 4)
    events = reader.drain()
    assert events[-1] == logged(4) or events == [REFRESH_EVENT]
    assert REFRESH_EVENT in events
    later = [event for event in (logged(3), logged(4)) if event in events]
    assert all(events.index(REFRESH_EVENT) < events.index(event) for event in later)


def test_an_answer_that_comes_after_a_refresh_is_not_wanted() -> None:
    reader = Reader(2)
    reader.offer(*range(1, 10))
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    reader.backlog.offer(REFRESH_EVENT)
    assert reader.log.answer()
    assert reader.drain() == [REFRESH_EVENT]


def test_an_answer_from_before_a_refresh_is_not_taken_for_the_next() -> None:
    reader = Reader(2)
    reader.offer(1, 2, 3)
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    reader.backlog.offer(REFRESH_EVENT)
    assert reader.backlog.get(timeout=0) is REFRESH_EVENT
    reader.offer(4, 5, 6)
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    assert reader.drain() == [logged(4), logged(5), logged(6)]


def test_answers_that_lead_nowhere_end_in_a_refresh() -> None:
    reader = Reader(2)
    reader.offer(*range(1, 10))
    reader.backlog._tail.floor = 10**15  # somebody's invention
    reader.log.page_size = 100
    assert reader.drain() == [*(logged(number) for number in range(1, 10)), REFRESH_EVENT]


def test_the_cursor_is_what_was_handed_out_or_what_there_was_nothing_of() -> None:
    reader = Reader(2, known=10)
    assert reader.backlog.number == 10
    reader.offer(11, 12)
    assert reader.backlog.number == 10
    assert reader.backlog.get() == logged(11)
    assert reader.backlog.number == 11
    reader.drain()
    reader.log.commit(50, ours=False)
    reader.log.begun = reader.log.offered = 50
    assert reader.backlog.number == 50


@pytest.mark.parametrize("drop", [True, False])
def test_the_end_is_read_also_by_one_who_is_behind(drop: bool) -> None:
    reader = Reader(2)
    reader.offer(*range(1, 10))
    with pytest.raises(queue.Empty):
        reader.backlog.get(timeout=0)
    reader.log.answer()
    reader.backlog.end(drop=drop)
    expected = [CLOSE_EVENT] if drop else [logged(1), logged(2), logged(3), CLOSE_EVENT]
    assert [reader.backlog.get(timeout=0) for _ in expected] == expected
    assert reader.backlog.get_all(timeout=0) == [CLOSE_EVENT]


def test_one_that_waits_is_woken_by_an_answer() -> None:
    reader = Reader(1)
    got: list[Event] = []
    thread = threading.Thread(target=lambda: got.extend(reader.backlog.get(timeout=PATIENCE) for _ in range(9)))
    thread.start()
    eventually(lambda: reader.backlog._waiting == 1)
    reader.offer(*range(1, 10))
    while thread.is_alive():
        reader.log.answer()
        thread.join(0.001)
    assert got == [logged(number) for number in range(1, 10)]


def test_one_that_is_about_to_wait_asks_when_it_falls_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(2)
    wait = reader.backlog._wait

    def be_interrupted_and_wait(*arguments: Any) -> Any:
        reader.offer(*range(1, 6))  # the listener comes before the thread has begun to wait
        return wait(*arguments)

    monkeypatch.setattr(reader.backlog, "_wait", be_interrupted_and_wait)
    got: list[Event] = []
    thread = threading.Thread(target=lambda: got.append(reader.backlog.get(timeout=PATIENCE)))
    thread.start()
    while thread.is_alive():
        reader.log.answer()
        thread.join(0.001)
    assert got == [logged(1)]


def test_two_that_wait_are_both_woken_by_one_answer() -> None:
    reader = Reader(8, after=0, known=5)
    got: list[Event] = []
    threads = [threading.Thread(target=lambda: got.append(reader.backlog.get(timeout=PATIENCE))) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: reader.backlog._waiting == 2)
    assert reader.log.answer()
    for thread in threads:
        thread.join(PATIENCE / 2)
    assert sorted(event.id for event in got) == ["1", "2"]


class Following(RuleBasedStateMachine):
    """Whatever happens in whatever order, a reader gets everything once, or a refresh where the log can't tell."""

    @initialize(
        size=st.integers(1, 4),
        room=st.integers(1, 8),
        known=st.integers(0, 6),
        missed=st.integers(0, 6),
        fresh=st.booleans(),
    )
    def begin(self, size: int, room: int, known: int, missed: int, fresh: bool) -> None:
        after = None if fresh else max(0, known - missed)
        self.reader = Reader(size, after=after, known=known, room=room)
        self.expected = known if after is None else after
        self.number = known

    @rule(count=st.integers(1, 7), ours=st.booleans())
    def publish(self, count: int, ours: bool) -> None:
        for _ in range(count):
            self.number += 1
            if ours:
                self.reader.offer(self.number)
            else:
                self.reader.log.commit(self.number, ours=False)
                self.reader.log.begun = self.reader.log.offered = self.number

    @rule()
    def gap(self) -> None:
        self.reader.backlog.offer(REFRESH_EVENT)

    @rule(count=st.integers(1, 7))
    def skip(self, count: int) -> None:
        skip(self.reader, *range(self.number + 1, self.number + count + 1))
        self.number += count

    @rule(kept=st.integers(0, 8))
    def prune(self, kept: int) -> None:
        log = self.reader.log
        log.pruned_to = max(log.pruned_to, self.number - kept)
        log.events = [event for event in log.events if int(event.id) > log.pruned_to]

    @rule()
    def answer(self) -> None:
        self.reader.log.answer()

    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        for _ in range(count):
            try:
                self.saw(self.reader.backlog.get(timeout=0))
            except queue.Empty:
                return

    @rule()
    def read_all(self) -> None:
        for event in self.reader.drain():
            self.saw(event)
        self.nothing_is_missing()

    @rule()
    def look_at_the_cursor(self) -> None:
        self.nothing_is_missing(self.reader.backlog.number)

    def saw(self, event: Event) -> None:
        if event is REFRESH_EVENT:
            self.expected = -1
            return
        number = int(event.id)
        assert number > self.expected
        if self.expected >= 0:
            self.nothing_is_missing(number - 1)
        self.expected = number

    def nothing_is_missing(self, until: int | None = None) -> None:
        """No event of ours is between what was seen last and a number."""
        until = self.number if until is None else until
        if self.expected >= 0:
            assert not [event for event in self.reader.log.events if self.expected < int(event.id) <= until]

    @invariant()
    def it_is_bounded(self) -> None:
        if hasattr(self, "reader"):
            assert len(self.reader.backlog.queue) <= self.reader.backlog.maxsize
            assert held(self.reader) == self.reader.backlog._tail.bytes
            events = [event for event in self.reader.backlog.queue if event is not REFRESH_EVENT]
            assert held(self.reader) <= self.reader.backlog.max_bytes or len(events) == 1
            assert len(self.reader.backlog._ready) <= self.reader.log.page_size


TestFollowing = Following.TestCase
