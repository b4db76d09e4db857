"""Feed: one log, many readers, and for each of them the rule of a bounded queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgfanout import REFRESH_EVENT, Event, MemoryHub, Subscription
from pgfanout.feed import Feed, OverrunError
from pgfanout.topic import Topic

from .support.logs import ManualLog

PATIENCE = 20.0


class Owner:
    """Notes what a registry would be told."""

    def __init__(self) -> None:
        self.left: list[tuple[Feed, bool]] = []
        self.refreshes = 0

    def leave(self, consumer: Feed, *, stalled: bool = False) -> None:
        self.left.append((consumer, stalled))

    def count_refreshes(self, count: int) -> None:
        self.refreshes += count

    def count_failure(self) -> None:
        raise AssertionError("nothing fails here")


class NewsReader:
    """Notes what it is told, or does something about it."""

    def __init__(self, does: Callable[[Feed], object] = lambda feed: None) -> None:
        self.told: list[Feed] = []
        self.woken = 0
        self._does = does

    def news(self, feed: Feed) -> None:
        self.told.append(feed)
        self._does(feed)

    def wake(self) -> None:
        self.woken += 1


class Reader:
    """One reader's place in a feed."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.position = feed.end_position

    def read(self, until: int | None = None) -> list[str]:
        events, self.position = self.feed.read(self.position, until)
        return names(events)


@pytest.fixture
def owner() -> Owner:
    return Owner()


def feed_of(size: int, owner: Owner | None = None) -> Feed:
    return Feed(size, NewsReader(), owner or Owner())


def number(value: int) -> Event:
    return Event("orders", str(value).encode())


def names(events: list[Event]) -> list[str]:
    return ["refresh" if event is REFRESH_EVENT else event.payload.decode() for event in events]


def offer(feed: Feed, *values: int) -> None:
    for value in values:
        assert feed.offer(number(value)) is True


# Reading.


def test_a_new_feed_has_nothing_and_has_not_ended() -> None:
    feed = feed_of(3)
    assert feed.read(0) == ([], 0)
    assert (feed.end_position, feed.ended, feed.members, feed.size) == (0, False, 0, 3)


def test_events_are_read_in_the_order_in_which_they_were_offered() -> None:
    feed = feed_of(8)
    offer(feed, *range(5))
    events, position = feed.read(0)
    assert (names(events), position) == (["0", "1", "2", "3", "4"], 5)
    assert feed.read(position) == ([], 5)


def test_an_event_is_handed_out_as_it_is_and_not_as_a_copy() -> None:
    feed = feed_of(8)
    event = number(1)
    feed.offer(event)
    assert feed.read(0)[0][0] is event


def test_each_reader_has_its_own_place() -> None:
    feed = feed_of(8)
    early = Reader(feed)
    offer(feed, 1, 2)
    late = Reader(feed)
    assert late.position == 2
    offer(feed, 3)
    assert late.read() == ["3"]
    assert early.read() == ["1", "2", "3"]
    offer(feed, 4)
    assert early.read() == late.read() == ["4"]


def test_reading_takes_nothing_from_others_who_are_at_the_same_place() -> None:
    feed = feed_of(8)
    offer(feed, 1, 2)
    assert names(feed.read(0)[0]) == names(feed.read(0)[0]) == ["1", "2"]


def test_who_reads_up_to_a_position_gets_the_rest_later() -> None:
    feed = feed_of(8)
    reader = Reader(feed)
    offer(feed, 1, 2, 3, 4)
    assert (reader.read(until=3), reader.position) == (["1", "2", "3"], 3)
    assert reader.read(until=3) == []
    assert reader.read() == ["4"]


# The overflow rule.


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        (3, 3, ["0", "1", "2"]),
        (3, 4, ["refresh"]),
        (3, 5, ["refresh", "4"]),
        (3, 6, ["refresh", "4", "5"]),
        (3, 7, ["refresh"]),
        (3, 8, ["refresh", "7"]),
        (1, 1, ["0"]),
        (1, 2, ["refresh"]),
        (1, 3, ["refresh"]),
        (2, 100, ["refresh", "99"]),
    ],
)
def test_what_meets_a_full_queue_leaves_one_refresh_in_the_place_of_all(
    size: int, count: int, expected: list[str]
) -> None:
    feed = feed_of(size)
    offer(feed, *range(count))
    events, position = feed.read(0)
    assert (names(events), position) == (expected, count)


def test_who_is_too_slow_costs_those_nothing_who_read() -> None:
    feed = feed_of(2)
    reading, stalled = Reader(feed), Reader(feed)
    for value in range(20):
        offer(feed, value)
        assert reading.read() == [str(value)]
    assert stalled.read() == ["refresh", "19"]


def test_the_refresh_is_not_repeated_when_the_reader_goes_on() -> None:
    feed = feed_of(2)
    reader = Reader(feed)
    offer(feed, 1, 2, 3)
    assert reader.read() == ["refresh"]
    offer(feed, 4, 5)
    assert reader.read() == ["4", "5"]


def test_who_reads_up_to_a_position_whose_events_are_gone_is_told() -> None:
    feed = feed_of(2)
    reader = Reader(feed)
    offer(feed, *range(10))
    assert reader.read(until=2) == ["refresh"]
    assert reader.position == 2


def test_who_reads_up_to_a_position_is_too_slow_by_what_is_before_it_alone() -> None:
    feed = feed_of(3)
    reader = Reader(feed)
    offer(feed, 0, 1, 2, 3)
    assert reader.read(until=3) == ["0", "1", "2"]
    assert reader.read() == ["3"]


def test_every_reader_who_was_too_slow_is_counted(owner: Owner) -> None:
    feed = feed_of(2, owner)
    offer(feed, 0, 1)
    feed.read(0, readers=5)
    assert owner.refreshes == 0
    offer(feed, 2)
    feed.read(0, readers=5)
    assert owner.refreshes == 5
    offer(feed, 3, 4)
    feed.read(0)  # five events: it was full twice
    assert owner.refreshes == 7


def test_a_refresh_of_the_hub_is_none_of_a_reader_who_was_too_slow(owner: Owner) -> None:
    feed = feed_of(8, owner)
    feed.offer(REFRESH_EVENT)
    assert names(feed.read(0)[0]) == ["refresh"]
    assert owner.refreshes == 0


def test_who_is_told_since_the_events_were_forgotten_is_counted_once(owner: Owner) -> None:
    feed = feed_of(8, owner)
    offer(feed, 1, 2, 3)
    feed.forget(3)
    assert names(feed.read(0)[0]) == ["refresh"]
    assert owner.refreshes == 1


# The bound in bytes.


def feed_of_bytes(buffer_bytes: int, owner: Owner | None = None, log: ManualLog | None = None) -> Feed:
    feed = Feed(100, NewsReader(), owner or Owner(), (), log, buffer_bytes=buffer_bytes)
    feed.begin()
    return feed


def of_size(name: int, size: int) -> Event:
    return Event("orders", b"%d%b" % (name, b" " * (size - 1)))


def stripped(events: list[Event]) -> list[str]:
    return [name.strip() for name in names(events)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10], ["0"]),
        ([11], ["0"]),
        ([5, 5], ["0", "1"]),
        ([5, 6], ["refresh", "1"]),
        ([10, 11], ["refresh", "1"]),
        ([11, 10], ["refresh", "1"]),
        ([3, 3, 3, 3], ["refresh", "1", "2", "3"]),
        ([3, 3, 3, 9], ["refresh", "3"]),
    ],
)
def test_what_has_too_many_bytes_is_a_refresh_and_the_newest_that_fit(sizes: list[int], expected: list[str]) -> None:
    owner = Owner()
    feed = feed_of_bytes(10, owner)
    for name, size in enumerate(sizes):
        feed.offer(of_size(name, size))
    events, position = feed.read(0, readers=3)
    assert (stripped(events), position) == (expected, len(sizes))
    assert owner.refreshes == 3 * ("refresh" in expected)


def test_what_others_have_not_read_is_no_reason_to_tell_a_reader_that_has() -> None:
    feed = feed_of_bytes(10)
    stalled, reading = Reader(feed), Reader(feed)
    for name in range(8):
        feed.offer(of_size(name, 9))
        assert [each.strip() for each in reading.read()] == [str(name)]
    assert [each.strip() for each in stalled.read()] == ["refresh", "7"]


@given(st.integers(1, 20), st.lists(st.integers(1, 30) | st.none(), max_size=60))
def test_no_more_bytes_are_held_than_that_or_one_event(buffer_bytes: int, steps: list[int | None]) -> None:
    feed = feed_of_bytes(buffer_bytes)
    position = 0
    for step in steps:
        if step is None:
            _, position = feed.read(position)
            feed.forget(position)
        else:
            feed.offer(of_size(1, step))
        held = sum(len(event.payload) for event in feed._events)
        assert held == feed._bytes
        assert held <= buffer_bytes or len(feed._events) == 1


def test_with_a_log_that_refills_a_reader_goes_there_for_what_has_too_many_bytes(owner: Owner) -> None:
    log = ManualLog(10)
    feed = feed_of_bytes(3, owner, log)
    offer_logged(feed, log, 11)
    assert names(feed.read(0)[0]) == ["11"]
    offer_logged(feed, log, 12)
    with pytest.raises(OverrunError):
        feed.read(0)
    position, _ = feed.join(11, 0, 0)
    assert rest(feed, position) == ["12"]
    assert owner.refreshes == 0


def test_a_hubs_feeds_have_its_bound() -> None:
    with MemoryHub(buffer_size=7, buffer_bytes=8) as hub:
        feed, _ = hub.follow([Topic("orders", "11111111-1111-4111-8111-111111111111")], NewsReader())
        assert (feed.size, feed.buffer_bytes) == (7, 8)
        feed.leave()


# Refreshes in a row.


def test_two_refreshes_of_the_hub_in_a_row_are_said_once() -> None:
    feed = feed_of(8)
    offer(feed, 1)
    for _ in range(3):
        feed.offer(REFRESH_EVENT)
    offer(feed, 2)
    feed.offer(REFRESH_EVENT)
    events, position = feed.read(0)
    assert (names(events), position) == (["1", "refresh", "2", "refresh"], 6)


def test_a_refresh_of_the_hub_after_that_of_a_slow_reader_is_said_once() -> None:
    feed = feed_of(2)
    offer(feed, 1, 2, 3)
    feed.offer(REFRESH_EVENT)
    assert names(feed.read(0)[0]) == ["refresh"]


def test_repeated_refreshes_are_said_once_to_who_stops_before_the_last_one() -> None:
    feed = feed_of(8)
    for _ in range(3):
        feed.offer(REFRESH_EVENT)
    assert names(feed.read(0, until=2)[0]) == ["refresh"]


def test_the_same_event_twice_is_two_events() -> None:
    feed = feed_of(8)
    feed.offer(REFRESH_EVENT)
    offer(feed, 1, 1)
    assert names(feed.read(0)[0]) == ["refresh", "1", "1"]


def test_a_refresh_that_follows_one_that_was_read_is_said_again() -> None:
    feed = feed_of(8)
    reader = Reader(feed)
    feed.offer(REFRESH_EVENT)
    assert reader.read() == ["refresh"]
    feed.offer(REFRESH_EVENT)
    assert reader.read() == ["refresh"]


# Compared with a subscription.

OFFER, REFRESH = -1, -2
steps = st.lists(st.sampled_from([OFFER, OFFER, OFFER, REFRESH]) | st.integers(0, 2), max_size=60)


class Both:
    """A subscription and a reader of a feed, which are offered the same."""

    def __init__(self, feed: Feed) -> None:
        self.reader = Reader(feed)
        self.subscription = Subscription(feed.size)
        self.ends_with_refresh = False
        """Whether the last thing in the subscription's queue is a refresh."""
        self.overflows = 0

    def offer(self, event: Event) -> None:
        full = not self.subscription.offer(event)
        self.overflows += full
        self.ends_with_refresh = full or event is REFRESH_EVENT

    def read(self) -> tuple[list[str], list[str]]:
        self.ends_with_refresh = False
        rest = self.subscription._backlog.take_rest()
        return self.reader.read(), names(rest)


@given(st.integers(1, 5), steps)
@example(3, [OFFER] * 3 + [REFRESH, OFFER, OFFER])
@example(1, [REFRESH, OFFER, 0, OFFER, REFRESH, 1, 0])
def test_a_reader_gets_what_a_subscription_would_hold(size: int, steps: list[int]) -> None:
    """Exactly, as long as no refresh of the hub meets another one that nobody has read."""
    owner = Owner()
    feed = feed_of(size, owner)
    readers = [Both(feed) for _ in range(3)]
    for value, step in enumerate(steps):
        if step >= 0:
            got, expected = readers[step].read()
            assert got == expected
        elif step == OFFER or not any(each.ends_with_refresh for each in readers):
            event = number(value) if step == OFFER else REFRESH_EVENT
            feed.offer(event)
            for each in readers:
                each.offer(event)
    for each in readers:
        got, expected = each.read()
        assert got == expected
    assert owner.refreshes == sum(each.overflows for each in readers)


def test_a_refresh_of_the_hub_that_meets_an_unread_one_takes_a_place() -> None:
    """In a subscription's queue it takes none; but other readers may have read the one before it. So one may be told to
    refresh a little sooner, and misses nothing without being told."""
    feed, subscription = feed_of(3), Subscription(3)
    for event in (REFRESH_EVENT, REFRESH_EVENT, number(1), number(2), number(3)):
        feed.offer(event)
        subscription.offer(event)
    assert names(subscription.get_all(0)) == ["refresh"]
    assert names(feed.read(0)[0]) == ["refresh", "3"]


@given(st.integers(1, 5), steps)
def test_a_reader_never_misses_a_gap_however_many_refreshes_the_hub_sends(size: int, steps: list[int]) -> None:
    """What is read is what was offered since, or a refresh and the end of it."""
    feed = feed_of(size)
    readers = [Reader(feed) for _ in range(3)]
    offered: list[str] = []
    for value, step in enumerate([*steps, 0, 1, 2]):
        if step < 0:
            event = number(value) if step == OFFER else REFRESH_EVENT
            feed.offer(event)
            offered += names([event])
            continue
        since = offered[readers[step].position :]
        got = readers[step].read()
        assert readers[step].position == len(offered)
        assert len(got) <= size
        assert ("refresh", "refresh") not in pairwise(got)
        if len(since) <= size:
            assert got == without_repeated_refreshes(since)
        else:
            assert got[0] == "refresh"
            assert got in [without_repeated_refreshes(["refresh", *since[first:]]) for first in range(len(since) + 1)]


def without_repeated_refreshes(events: list[str]) -> list[str]:
    kept: list[str] = []
    for event in events:
        if event != "refresh" or kept[-1:] != ["refresh"]:
            kept.append(event)
    return kept


@given(st.integers(1, 4), st.lists(st.booleans() | st.integers(0, 100), max_size=80))
def test_no_more_than_twice_the_size_is_held_whatever_happens(size: int, steps: list[bool | int]) -> None:
    feed = feed_of(size)
    position = 0
    for value, step in enumerate(steps):
        if step is True:
            feed.offer(REFRESH_EVENT)
        elif step is False:
            _, position = feed.read(position)
            feed.forget(position - value % 3)
        else:
            offer(feed, *range(step))
        assert len(feed._events) <= 2 * size


# Forgetting.


def test_what_every_reader_has_passed_is_not_held() -> None:
    feed = feed_of(8)
    offer(feed, 1, 2, 3)
    feed.forget(2)
    assert len(feed._events) == 1
    assert names(feed.read(2)[0]) == ["3"]
    feed.forget(3)
    feed.forget(3)
    assert feed._events == []
    assert feed.end_position == 3


def test_forgetting_what_was_forgotten_long_ago_takes_nothing() -> None:
    feed = feed_of(8)
    offer(feed, 1, 2, 3)
    feed.forget(2)
    feed.forget(0)
    assert names(feed.read(2)[0]) == ["3"]


def test_positions_go_on_after_everything_was_forgotten() -> None:
    feed = feed_of(2)
    for value in range(10):
        offer(feed, value)
        assert (names(feed.read(value)[0]), feed.end_position) == ([str(value)], value + 1)
        feed.forget(value + 1)


# News.


def test_news_are_told_once_until_somebody_reads() -> None:
    reader = NewsReader()
    feed = Feed(8, reader, Owner())
    offer(feed, 1, 2, 3)
    assert reader.told == [feed]
    feed.read(0)
    assert reader.told == [feed]
    offer(feed, 4, 5)
    assert reader.told == [feed, feed]
    assert reader.woken == 0  # whoever offers does that, once for all feeds


def test_who_reads_up_to_a_position_may_leave_something_so_nobody_is_told_again() -> None:
    reader = NewsReader()
    feed = Feed(8, reader, Owner())
    offer(feed, 1, 2)
    feed.read(0, until=2)
    offer(feed, 3)
    assert len(reader.told) == 1


def test_news_are_told_when_they_can_be_read() -> None:
    read: list[list[str]] = []
    feed = Feed(8, NewsReader(lambda feed: read.append(names(feed.read(0)[0]))), Owner())
    offer(feed, 1)
    assert read == [["1"]]


def test_the_end_is_told_even_if_nobody_has_read_the_news_before_it() -> None:
    told: list[bool] = []
    feed = Feed(8, NewsReader(lambda feed: told.append(feed.ended)), Owner())
    offer(feed, 1)
    feed.end()
    assert told == [False, True]


# The end.


def test_what_was_there_at_the_end_can_still_be_read_and_nothing_comes_after_it() -> None:
    reader = NewsReader()
    feed = Feed(8, reader, Owner())
    offer(feed, 1, 2)
    feed.end()
    reader.told.clear()
    assert feed.offer(number(3)) is True
    feed.offer(REFRESH_EVENT)
    assert feed.ended
    assert feed.end_position == 2
    assert names(feed.read(0)[0]) == ["1", "2"]
    assert reader.told == []


def test_who_leaves_is_told_to_the_owner_with_why(owner: Owner) -> None:
    feed = feed_of(8, owner)
    feed.leave()
    feed.leave(stalled=True)
    assert owner.left == [(feed, False), (feed, True)]


# Threads.


def test_nothing_is_lost_and_the_order_kept_between_threads() -> None:
    count = 20_000
    news = threading.Semaphore(0)
    feed = Feed(count, NewsReader(lambda feed: news.release()), Owner())

    def write() -> None:
        for value in range(count):
            feed.offer(number(value))

    def read() -> list[str]:
        read: list[str] = []
        position = 0
        while len(read) < count:
            assert news.acquire(timeout=PATIENCE), f"no news came after {len(read)} events"
            events, position = feed.read(position)
            feed.forget(position)
            read += names(events)
        return read

    with ThreadPoolExecutor(2) as pool:
        reading, writing = pool.submit(read), pool.submit(write)
        writing.result(PATIENCE)
        assert reading.result(PATIENCE) == [str(value) for value in range(count)]


def test_a_reader_that_is_sometimes_too_slow_is_always_told() -> None:
    feed = feed_of(5)
    done = threading.Event()

    def write() -> None:
        for value in range(20_000):
            feed.offer(number(value))
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        reader, last, gap = Reader(feed), None, False
        reader.position = 0
        while not done.is_set() or reader.position < 20_000:
            for name in reader.read():
                if name == "refresh":
                    gap = True
                    continue
                assert gap or last is None or int(name) == last + 1
                assert last is None or int(name) > last
                last, gap = int(name), False
        writing.result(PATIENCE)
        assert gap or last == 19_999


def test_every_reader_in_a_thread_of_its_own_sees_everything() -> None:
    count = 2_000
    feed = feed_of(count)

    def read(reader: Reader) -> list[str]:
        read: list[str] = []
        while len(read) < count:
            read += reader.read()
        return read

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(read, Reader(feed)) for _ in range(4)]
        offer(feed, *range(count))
        assert all(future.result(PATIENCE) == [str(value) for value in range(count)] for future in futures)


# Readers of a log, who join the feed where they have read that far.


def logged_feed(log: ManualLog, owner: Owner | None = None) -> Feed:
    feed = Feed(2, NewsReader(), owner or Owner(), (), log)
    feed.begin()
    return feed


def offer_logged(feed: Feed, log: ManualLog, *numbers: int) -> None:
    for number in numbers:
        feed.offer(log.reach(number))


def rest(feed: Feed, position: int | None) -> list[str]:
    assert position is not None
    return names(feed.read(position)[0])


def test_a_reader_of_the_log_joins_right_after_what_it_has_read() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    offer_logged(feed, log, 11, 12, 13)
    for after, expected in ((10, ["11", "12", "13"]), (12, ["13"]), (13, [])):
        position, since = feed.join(after, feed.end_position, 0)
        assert (rest(feed, position), since) == (expected, 3)


@pytest.mark.parametrize("after", [9, 14])
def test_a_reader_of_the_log_waits_as_long_as_the_feed_can_not_go_on_for_it(after: int) -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    offer_logged(feed, log, 11, 12, 13)
    assert feed.join(after, 0, 0) == (None, 0)


def test_a_reader_of_the_log_that_has_not_come_to_a_refresh_gets_that_first() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    offer_logged(feed, log, 11)
    feed.offer(REFRESH_EVENT)
    offer_logged(feed, log, 12)
    position, since = feed.join(10, 0, 0)
    assert (rest(feed, position), since) == (["refresh", "12"], 0)


def test_a_reader_of_the_log_that_has_read_beyond_a_refresh_gets_nothing_twice() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    offer_logged(feed, log, 11)
    feed.offer(REFRESH_EVENT)
    offer_logged(feed, log, 12, 13)
    position, since = feed.join(12, 0, 0)
    assert since == 2, "there was a refresh to be told"
    assert rest(feed, position) == ["13"]
    assert feed.join(12, since, 0) == (position, since), "and it's told once"


def test_a_reader_that_is_ahead_of_a_feed_is_told_its_refresh_and_waits() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    feed.offer(REFRESH_EVENT)
    assert feed.join(12, 0, 0) == (None, 1)
    offer_logged(feed, log, 11, 12, 13)
    position, _ = feed.join(12, 1, 0)
    assert rest(feed, position) == ["13"]


def test_what_the_hub_skips_is_gone_for_every_reader_that_has_not_read_it() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    offer_logged(feed, log, 11, 12)
    reader = Reader(feed)
    feed.skip(12, 50)
    log.reach(50)
    for position in (0, 1, reader.position):
        with pytest.raises(OverrunError):
            feed.read(position)
    assert feed.join(40, reader.position, reader.position) == (None, reader.position)
    joined, _ = feed.join(50, reader.position, reader.position)
    assert joined is not None
    offer_logged(feed, log, 51)
    assert [event.id for event in feed.read(joined)[0]] == ["51"]


def test_a_refresh_that_nobody_has_read_stands_for_what_the_hub_skips_as_well() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    feed.offer(REFRESH_EVENT)
    feed.skip(10, 50)
    log.reach(50)
    offer_logged(feed, log, 51)
    assert names(feed.read(0)[0]) == ["refresh", "51"]


def test_the_streamer_hears_of_what_the_hub_skips_unless_the_feed_has_ended() -> None:
    log, reader = ManualLog(10), NewsReader()
    feed = Feed(4, reader, Owner(), (), log)
    feed.skip(10, 50)
    feed.end()
    assert len(reader.told) == 2
    position = feed.end_position
    feed.skip(50, 60)
    assert (len(reader.told), feed.end_position) == (2, position)


@pytest.mark.parametrize(("after", "joins"), [(10, True), (11, True), (12, False), (13, True), (14, False), (15, True)])
def test_a_number_from_outside_joins_where_the_feed_can_vouch_for_it(after: int, joins: bool) -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    offer_logged(feed, log, 11, 13)
    log.reach(15)  # of another topic
    assert (feed.join(after, 0, 0, known=False)[0] is not None) is joins
    log.complete = False
    assert feed.join(after, 0, 0, known=False) == (None, 0)
