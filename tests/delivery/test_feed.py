"""Feed: one log, many readers, and for each of them the rule of a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgfanout import REFRESH_EVENT, Event, MemoryHub
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.log import Page
from pgfanout.delivery.reader import Reader
from pgfanout.hub import core_of
from pgfanout.topic import Topic

from ..support.logs import ManualLog
from ..support.subscriptions import FedSubscription

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

    def count_followers(self, change: int) -> None:
        raise AssertionError("nothing follows in a thread here")


class Mailbox:
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


class Reading:
    """One reader of a feed."""

    def __init__(self, feed: Feed, position: int | None = None) -> None:
        self.feed = feed
        self.reader = feed.reader() if position is None else Reader(position)

    @property
    def position(self) -> int:
        return self.reader.position

    def read(self, until: int | None = None) -> list[str]:
        return names(self.feed.read(self.reader, until))


def read_at(feed: Feed, position: int, until: int | None = None, readers: int = 1) -> tuple[list[Event], int]:
    """What a reader at a position gets, and the next position."""
    reader = Reader(position)
    return feed.read(reader, until, readers), reader.position


@pytest.fixture
def owner() -> Owner:
    return Owner()


def feed_of(size: int, owner: Owner | None = None) -> Feed:
    return Feed(size, Mailbox(), owner or Owner())


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
    assert read_at(feed, 0) == ([], 0)
    assert (feed.end_position, feed.ended, feed.members, feed.size) == (0, False, 0, 3)


def test_events_are_read_in_the_order_in_which_they_were_offered() -> None:
    feed = feed_of(8)
    offer(feed, *range(5))
    events, position = read_at(feed, 0)
    assert (names(events), position) == (["0", "1", "2", "3", "4"], 5)
    assert read_at(feed, position) == ([], 5)


def test_an_event_is_handed_out_as_it_is_and_not_as_a_copy() -> None:
    feed = feed_of(8)
    event = number(1)
    feed.offer(event)
    assert read_at(feed, 0)[0][0] is event


def test_each_reader_has_its_own_place() -> None:
    feed = feed_of(8)
    early = Reading(feed)
    offer(feed, 1, 2)
    late = Reading(feed)
    assert late.position == 2
    offer(feed, 3)
    assert late.read() == ["3"]
    assert early.read() == ["1", "2", "3"]
    offer(feed, 4)
    assert early.read() == late.read() == ["4"]


def test_reading_takes_nothing_from_others_who_are_at_the_same_place() -> None:
    feed = feed_of(8)
    offer(feed, 1, 2)
    assert names(read_at(feed, 0)[0]) == names(read_at(feed, 0)[0]) == ["1", "2"]


def test_who_reads_up_to_a_position_gets_the_rest_later() -> None:
    feed = feed_of(8)
    reader = Reading(feed)
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
    events, position = read_at(feed, 0)
    assert (names(events), position) == (expected, count)


def test_who_is_too_slow_costs_those_nothing_who_read() -> None:
    feed = feed_of(2)
    reading, stalled = Reading(feed), Reading(feed)
    for value in range(20):
        offer(feed, value)
        assert reading.read() == [str(value)]
    assert stalled.read() == ["refresh", "19"]


def test_the_refresh_is_not_repeated_when_the_reader_goes_on() -> None:
    feed = feed_of(2)
    reader = Reading(feed)
    offer(feed, 1, 2, 3)
    assert reader.read() == ["refresh"]
    offer(feed, 4, 5)
    assert reader.read() == ["4", "5"]


def test_who_reads_up_to_a_position_whose_events_are_gone_is_told() -> None:
    feed = feed_of(2)
    reader = Reading(feed)
    offer(feed, *range(10))
    assert reader.read(until=2) == ["refresh"]
    assert reader.read() == ["8", "9"]


def test_who_reads_up_to_a_position_is_too_slow_by_what_is_before_it_alone() -> None:
    feed = feed_of(3)
    reader = Reading(feed)
    offer(feed, 0, 1, 2, 3)
    assert reader.read(until=3) == ["0", "1", "2"]
    assert reader.read() == ["3"]


def test_every_reader_who_was_too_slow_is_counted(owner: Owner) -> None:
    feed = feed_of(2, owner)
    offer(feed, 0, 1)
    read_at(feed, 0, readers=5)
    assert owner.refreshes == 0
    offer(feed, 2)
    read_at(feed, 0, readers=5)
    assert owner.refreshes == 5
    offer(feed, 3, 4)
    read_at(feed, 0)  # five events: it was full twice
    assert owner.refreshes == 7


def test_a_refresh_of_the_hub_is_none_of_a_reader_who_was_too_slow(owner: Owner) -> None:
    feed = feed_of(8, owner)
    feed.offer(REFRESH_EVENT)
    assert names(read_at(feed, 0)[0]) == ["refresh"]
    assert owner.refreshes == 0


def test_who_is_told_since_the_events_were_forgotten_is_counted_once(owner: Owner) -> None:
    feed = feed_of(8, owner)
    offer(feed, 1, 2, 3)
    feed.drop_read(3)
    assert names(read_at(feed, 0)[0]) == ["refresh"]
    assert owner.refreshes == 1


# The bound in bytes.


def feed_of_bytes(buffer_bytes: int, owner: Owner | None = None, log: ManualLog | None = None) -> Feed:
    feed = Feed(100, Mailbox(), owner or Owner(), (), log, buffer_bytes=buffer_bytes)
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
    events, position = read_at(feed, 0, readers=3)
    assert (stripped(events), position) == (expected, len(sizes))
    assert owner.refreshes == 3 * ("refresh" in expected)


def test_what_others_have_not_read_is_no_reason_to_tell_a_reader_that_has() -> None:
    feed = feed_of_bytes(10)
    stalled, reading = Reading(feed), Reading(feed)
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
            _, position = read_at(feed, position)
            feed.drop_read(position)
        else:
            feed.offer(of_size(1, step))
        held = sum(len(event.payload) for event in feed.events)
        assert held == feed.bytes
        assert held <= buffer_bytes or len(feed.events) == 1


def test_with_a_log_that_refills_a_reader_goes_there_for_what_has_too_many_bytes(owner: Owner) -> None:
    log = ManualLog(10)
    feed = feed_of_bytes(3, owner, log)
    reading = Reading(feed)
    offer_logged(feed, log, 11)
    assert reading.read() == ["11"]
    offer_logged(feed, log, 12, 13)
    assert reading.read() == []
    assert reading.reader.behind
    answer(reading, 12)
    assert reading.read() == ["13"]
    assert owner.refreshes == 0


def test_a_hubs_feeds_have_its_bound() -> None:
    with MemoryHub(buffer_size=7, buffer_bytes=8) as hub:
        feed, _ = core_of(hub).follow([Topic("orders", "11111111-1111-4111-8111-111111111111")], Mailbox())
        assert (feed.size, feed.max_bytes) == (7, 8)
        feed.leave()


# Refreshes in a row.


def test_two_refreshes_of_the_hub_in_a_row_are_said_once() -> None:
    feed = feed_of(8)
    offer(feed, 1)
    for _ in range(3):
        feed.offer(REFRESH_EVENT)
    offer(feed, 2)
    feed.offer(REFRESH_EVENT)
    events, position = read_at(feed, 0)
    assert (names(events), position) == (["1", "refresh", "2", "refresh"], 6)


def test_a_refresh_of_the_hub_after_that_of_a_slow_reader_is_said_once() -> None:
    feed = feed_of(2)
    offer(feed, 1, 2, 3)
    feed.offer(REFRESH_EVENT)
    assert names(read_at(feed, 0)[0]) == ["refresh"]


def test_repeated_refreshes_are_said_once_to_who_stops_before_the_last_one() -> None:
    feed = feed_of(8)
    for _ in range(3):
        feed.offer(REFRESH_EVENT)
    assert names(read_at(feed, 0, until=2)[0]) == ["refresh"]


def test_the_same_event_twice_is_two_events() -> None:
    feed = feed_of(8)
    feed.offer(REFRESH_EVENT)
    offer(feed, 1, 1)
    assert names(read_at(feed, 0)[0]) == ["refresh", "1", "1"]


def test_a_refresh_that_follows_one_that_was_read_is_said_again() -> None:
    feed = feed_of(8)
    reader = Reading(feed)
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
        self.reader = Reading(feed)
        self.subscription = FedSubscription(feed.size)
        self.ends_with_refresh = False
        """Whether the last thing in the subscription's queue is a refresh."""
        self.overflows = 0

    def offer(self, event: Event) -> None:
        full = not self.subscription.offer(event)
        self.overflows += full
        self.ends_with_refresh = full or event is REFRESH_EVENT

    def read(self) -> tuple[list[str], list[str]]:
        self.ends_with_refresh = False
        try:
            rest = self.subscription.get_all(0)
        except queue.Empty:
            rest = []
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
    feed, subscription = feed_of(3), FedSubscription(3)
    for event in (REFRESH_EVENT, REFRESH_EVENT, number(1), number(2), number(3)):
        feed.offer(event)
        subscription.offer(event)
    assert names(subscription.get_all(0)) == ["refresh"]
    assert names(read_at(feed, 0)[0]) == ["refresh", "3"]


@given(st.integers(1, 5), steps)
def test_a_reader_never_misses_a_gap_however_many_refreshes_the_hub_sends(size: int, steps: list[int]) -> None:
    """What is read is what was offered since, or a refresh and the end of it."""
    feed = feed_of(size)
    readers = [Reading(feed) for _ in range(3)]
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
            _, position = read_at(feed, position)
            feed.drop_read(position - value % 3)
        else:
            offer(feed, *range(step))
        assert len(feed.events) <= 2 * size


# Forgetting.


def test_what_every_reader_has_passed_is_not_held() -> None:
    feed = feed_of(8)
    offer(feed, 1, 2, 3)
    feed.drop_read(2)
    assert len(feed.events) == 1
    assert names(read_at(feed, 2)[0]) == ["3"]
    feed.drop_read(3)
    feed.drop_read(3)
    assert feed.events == []
    assert feed.end_position == 3


def test_forgetting_what_was_forgotten_long_ago_takes_nothing() -> None:
    feed = feed_of(8)
    offer(feed, 1, 2, 3)
    feed.drop_read(2)
    feed.drop_read(0)
    assert names(read_at(feed, 2)[0]) == ["3"]


def test_positions_go_on_after_everything_was_forgotten() -> None:
    feed = feed_of(2)
    for value in range(10):
        offer(feed, value)
        assert (names(read_at(feed, value)[0]), feed.end_position) == ([str(value)], value + 1)
        feed.drop_read(value + 1)


# News.


def test_news_are_told_once_until_somebody_reads() -> None:
    reader = Mailbox()
    feed = Feed(8, reader, Owner())
    offer(feed, 1, 2, 3)
    assert reader.told == [feed]
    read_at(feed, 0)
    assert reader.told == [feed]
    offer(feed, 4, 5)
    assert reader.told == [feed, feed]
    assert reader.woken == 0  # whoever offers does that, once for all feeds


def test_who_reads_up_to_a_position_may_leave_something_so_nobody_is_told_again() -> None:
    reader = Mailbox()
    feed = Feed(8, reader, Owner())
    offer(feed, 1, 2)
    read_at(feed, 0, until=2)
    offer(feed, 3)
    assert len(reader.told) == 1


def test_news_are_told_when_they_can_be_read() -> None:
    read: list[list[str]] = []
    feed = Feed(8, Mailbox(lambda feed: read.append(names(read_at(feed, 0)[0]))), Owner())
    offer(feed, 1)
    assert read == [["1"]]


def test_the_end_is_told_even_if_nobody_has_read_the_news_before_it() -> None:
    told: list[bool] = []
    feed = Feed(8, Mailbox(lambda feed: told.append(feed.ended)), Owner())
    offer(feed, 1)
    feed.end()
    assert told == [False, True]


# The end.


def test_what_was_there_at_the_end_can_still_be_read_and_nothing_comes_after_it() -> None:
    reader = Mailbox()
    feed = Feed(8, reader, Owner())
    offer(feed, 1, 2)
    feed.end()
    reader.told.clear()
    assert feed.offer(number(3)) is True
    feed.offer(REFRESH_EVENT)
    assert feed.ended
    assert feed.end_position == 2
    assert names(read_at(feed, 0)[0]) == ["1", "2"]
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
    feed = Feed(count, Mailbox(lambda feed: news.release()), Owner())

    def write() -> None:
        for value in range(count):
            feed.offer(number(value))

    def read() -> list[str]:
        read: list[str] = []
        position = 0
        while len(read) < count:
            assert news.acquire(timeout=PATIENCE), f"no news came after {len(read)} events"
            events, position = read_at(feed, position)
            feed.drop_read(position)
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
        reader, last, gap = Reading(feed, 0), None, False
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

    def read(reader: Reading) -> list[str]:
        read: list[str] = []
        while len(read) < count:
            read += reader.read()
        return read

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(read, Reading(feed)) for _ in range(4)]
        offer(feed, *range(count))
        assert all(future.result(PATIENCE) == [str(value) for value in range(count)] for future in futures)


# Readers of a log. The rule is in test_delivery_reader; here is what a feed has to do with it.


def logged_feed(log: ManualLog, owner: Owner | None = None) -> Feed:
    feed = Feed(2, Mailbox(), owner or Owner(), (), log)
    feed.begin()
    return feed


def offer_logged(feed: Feed, log: ManualLog, *numbers: int) -> None:
    for number in numbers:
        feed.offer(log.reach(number))


def answer(reading: Reading, last: int) -> list[str]:
    """Answer what a reader asks with everything up to a number."""
    question = reading.reader.ask()
    assert question is not None
    page = Page([Event("orders", b"%d" % each, id=str(each)) for each in range(question.after + 1, last + 1)], last)
    return names(reading.feed.take(reading.reader, question, page))


def test_a_new_reader_has_the_number_up_to_which_everything_was_offered() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    assert feed.reader().number == 10
    log.begun = 11  # it is being offered: this reader gets it, or its page has loaded it
    assert feed.reader().number == 10
    feed.early = True
    assert feed.reader().number == 0


def test_a_reader_of_an_early_feed_begins_with_its_refresh_whatever_number_its_client_has() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    feed.early = True
    reading = Reading(feed)
    reading.reader = feed.reader(7)
    feed.offer(REFRESH_EVENT)
    offer_logged(feed, log, 11)
    assert reading.read() == ["refresh", "11"]
    assert not feed.early


def test_a_question_names_the_feeds_topics_and_is_put_once() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    reader = feed.reader(4)
    for _ in range(2):
        feed.ask(reader, lambda question, page: None, lambda question: True)
    assert [(question.after, question.known) for question in log.questions] == [(4, False)]


def test_a_reader_that_the_log_can_not_help_is_counted(owner: Owner) -> None:
    feed = logged_feed(ManualLog(10), owner)
    reader = feed.reader(4)
    question = reader.ask()
    assert question is not None
    assert feed.take(reader, question, None) == [REFRESH_EVENT]
    assert owner.refreshes == 1


def test_what_the_hub_skips_is_gone_for_every_reader_that_has_not_read_it() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    early = Reading(feed)
    offer_logged(feed, log, 11, 12)
    late = Reading(feed)
    feed.skip(12, 50)
    log.reach(50)
    for reading, after in ((early, 10), (late, 12)):
        assert reading.read() == []
        assert answer(reading, 50) == [str(number) for number in range(after + 1, 51)]
    offer_logged(feed, log, 51)
    assert early.read() == late.read() == ["51"]


def test_a_refresh_that_was_not_read_stands_for_what_the_hub_skips_as_well() -> None:
    log = ManualLog(10)
    feed = logged_feed(log)
    reading = Reading(feed)
    feed.offer(REFRESH_EVENT)
    feed.skip(10, 50)
    log.reach(50)
    offer_logged(feed, log, 51)
    assert reading.read() == ["refresh", "51"]


def test_the_streamer_hears_of_what_the_hub_skips_unless_the_feed_has_ended() -> None:
    log, mailbox = ManualLog(10), Mailbox()
    feed = Feed(4, mailbox, Owner(), (), log)
    feed.skip(10, 50)
    feed.end()
    assert len(mailbox.told) == 2
    position = feed.end_position
    feed.skip(50, 60)
    assert (len(mailbox.told), feed.end_position) == (2, position)
