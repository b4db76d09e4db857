"""Dispatcher: who is told what, and how often."""

from __future__ import annotations

import logging
import queue

import pytest

from pgfanout import REFRESH_EVENT, Event
from pgfanout.delivery.backlog import Backlog
from pgfanout.delivery.dispatcher import Dispatcher
from pgfanout.envelope import MalformedEnvelopeError
from pgfanout.topic import Topic

from ..support.subscriptions import FedSubscription

ORDERS = Topic("orders", "11111111-1111-4111-8111-111111111111")
STOCK = Topic("stock", "11111111-1111-4111-8111-111111111111")
THEIRS = Topic("orders", "22222222-2222-4222-8222-222222222222")


class Site:
    """A dispatcher whose time stands still, with subscriptions."""

    def __init__(self) -> None:
        self.now = 100.0
        self.dispatcher = Dispatcher(lambda: self.now)

    def subscribe(self, *topics: Topic) -> FedSubscription:
        subscription = FedSubscription(8)
        self.dispatcher.registry.add(subscription.consumer, topics)
        return subscription

    def offer(self, topic: Topic, payload: bytes) -> None:
        self.dispatcher.offer(topic, Event(topic.channel, payload))


@pytest.fixture
def site() -> Site:
    return Site()


def got(subscription: FedSubscription) -> list[str]:
    try:
        events = subscription.get_all(0)
    except queue.Empty:
        return []
    return ["refresh" if event is REFRESH_EVENT else event.payload.decode() for event in events]


def test_the_first_gap_is_told_at_once_and_to_its_topic_alone(site: Site) -> None:
    ours, both, theirs = site.subscribe(ORDERS), site.subscribe(STOCK, ORDERS), site.subscribe(THEIRS)
    site.dispatcher.note_gap(ORDERS)
    assert [got(ours), got(both), got(theirs)] == [["refresh"], ["refresh"], []]
    assert (site.dispatcher.pause(), site.dispatcher.gaps) == (None, 1)


def test_the_gaps_of_the_next_second_are_told_together_when_it_is_over(site: Site) -> None:
    ours, theirs = site.subscribe(ORDERS, STOCK), site.subscribe(THEIRS)
    site.dispatcher.note_gap(ORDERS)
    site.now += 0.25
    for topic in (ORDERS, STOCK, ORDERS):
        site.dispatcher.note_gap(topic)
    assert site.dispatcher.pause() == 0.75
    site.now += 0.5
    site.dispatcher.refresh_waiting()
    assert got(ours) == ["refresh"]
    site.now += 0.25
    site.dispatcher.refresh_waiting()
    assert [got(ours), got(theirs)] == [["refresh"], []]
    assert (site.dispatcher.pause(), site.dispatcher.gaps) == (None, 2)


def test_no_event_comes_between_a_gap_and_its_refresh_whichever_topic_it_is_of(site: Site) -> None:
    both, stock = site.subscribe(ORDERS, STOCK), site.subscribe(STOCK)
    site.dispatcher.note_gap(ORDERS)
    site.offer(STOCK, b"1")
    site.dispatcher.note_gap(ORDERS)
    site.offer(ORDERS, b"2")
    site.offer(STOCK, b"3")
    site.now += 1.0
    site.dispatcher.refresh_waiting()
    site.offer(ORDERS, b"4")
    assert [got(both), got(stock)] == [["refresh", "1", "refresh", "4"], ["1", "3"]]


@pytest.mark.parametrize("lost", [None, ORDERS])
def test_whoever_comes_after_a_gap_misses_nothing_and_is_told_of_the_next(site: Site, lost: Topic | None) -> None:
    early = site.subscribe(ORDERS)
    for _ in range(2):
        site.dispatcher.note_gap(lost)
    later = site.subscribe(ORDERS)
    site.offer(ORDERS, b"1")
    site.dispatcher.note_gap(lost)
    latest = site.subscribe(ORDERS)
    site.offer(ORDERS, b"2")
    site.now += 1.0
    site.dispatcher.refresh_waiting()
    assert [got(early), got(later), got(latest)] == [["refresh"], ["1", "refresh"], ["2"]]


def test_a_lost_connection_is_told_at_once_and_covers_what_waits(site: Site) -> None:
    subscription = site.subscribe(ORDERS)
    site.dispatcher.note_gap(ORDERS)
    site.dispatcher.note_gap(ORDERS)
    assert got(subscription) == ["refresh"]
    site.dispatcher.gap()
    site.offer(ORDERS, b"1")
    assert got(subscription) == ["refresh", "1"]
    assert site.dispatcher.pause() is None
    site.dispatcher.note_gap(ORDERS)
    assert got(subscription) == []


def test_a_gap_that_concerns_nobody_is_none(site: Site) -> None:
    site.dispatcher.note_gap(None)
    subscription = site.subscribe(STOCK)
    site.dispatcher.note_gap(ORDERS)
    assert (site.dispatcher.gaps, site.dispatcher.pause()) == (0, None)
    site.dispatcher.note_gap(STOCK)
    assert got(subscription) == ["refresh"]


def test_where_a_log_fills_gaps_nothing_is_held_and_what_nobody_can_read_is_none(site: Site) -> None:
    site.dispatcher.fills_gaps = True
    ours, stock = site.subscribe(ORDERS), site.subscribe(STOCK)
    site.dispatcher.take_malformed(MalformedEnvelopeError("not a JSON object"))
    for number in range(3):
        site.dispatcher.take_unlogged(ORDERS)
        site.offer(ORDERS, b"%d" % number)
    site.now += 1.0
    site.dispatcher.refresh_waiting()
    assert [got(ours), got(stock)] == [["refresh", "0", "1", "2", "refresh"], []]
    assert (site.dispatcher.undecodable, site.dispatcher.unlogged) == (1, 3)


def test_an_event_that_the_log_does_not_have_is_logged_at_a_bounded_rate_with_what_to_do(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            site.dispatcher.take_unlogged(ORDERS)
    [message] = caplog.messages
    assert "'orders'" in message
    assert "PGFANOUT_HISTORY_LOG_ONLY" in message
    assert "pgfanout.publish" in message


def test_everyone_is_sent_to_the_log_once(site: Site) -> None:
    skipped: list[tuple[Backlog, int, int]] = []

    class Follower(Backlog):
        def skip(self, after: int, until: int) -> None:
            skipped.append((self, after, until))

    follower = Follower(8, None)
    site.dispatcher.registry.add(follower, [ORDERS, STOCK])
    site.dispatcher.skip(3, 9)
    assert skipped == [(follower, 3, 9)]
