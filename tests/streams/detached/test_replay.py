"""Detached streams that replay: whenever the log answers, and however full the sockets are, everything arrives once."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pgfanout.delivery.feed import Feed
from pgfanout.delivery.log import number_of
from pgfanout.delivery.registry import Registry
from pgfanout.event import REFRESH_EVENT, Event
from pgfanout.streams import sse
from pgfanout.streams.detached.connection import Connection

from ...support.detached import loop_without_thread
from ...support.logs import TOPICS, MemoryLog
from ...support.sse import EventStreamParser, SentEvent

# Private members: the tests take the loop's steps one by one.

SIZE = 3


class Mailbox:
    """Is told of news; the test reads when it likes to."""

    def __init__(self) -> None:
        self.told: list[Feed] = []

    def news(self, feed: Feed) -> None:
        self.told.append(feed)

    def wake(self) -> None:
        pass


class Client:
    """The other end of a connection."""

    def __init__(self, connection: Connection, client_socket: socket.socket) -> None:
        self.connection = connection
        self.socket = client_socket
        self.parser = EventStreamParser()

    def take(self, size: int = 1 << 16) -> list[SentEvent]:
        events: list[SentEvent] = []
        try:
            while data := self.socket.recv(size):
                events += self.parser.feed(data)
        except BlockingIOError:
            pass
        return events


class Site:
    """A log, its listener, one feed, a loop, and clients."""

    def __init__(self, *, refill: bool = True, pruned_to: int = 0, known: int = 0) -> None:
        self.log = MemoryLog(refill=refill)
        for number in range(1, known + 1):
            self.log.commit(number)
        self.log.begun = self.log.offered = known
        self.log.pruned_to = pruned_to
        self.number = known
        self.coming: deque[tuple[int, Event | None]] = deque()
        self.registry = Registry()
        self.mailbox = Mailbox()
        self.stack = ExitStack()
        self.loop = loop_without_thread()
        self.stack.callback(self.loop._mailbox.abandon)
        self.stack.callback(self.loop.abandon)
        self.stack.callback(self.loop.cut)
        self.clients: list[Client] = []

    def join(self) -> Feed:
        feed = self.registry.join(TOPICS, lambda: Feed(SIZE, self.mailbox, self.registry, TOPICS, self.log))
        feed.begin()
        return feed

    def connect(self, after: int | None = None, *, small: bool = False, encoder: sse.Encoder = sse.encode) -> Client:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.stack.enter_context(theirs)
        feed = self.join()
        reader = feed.reader(after)
        connection = Connection(
            ours.detach(),
            feed,
            reader,
            chunked=False,
            head=sse.opening(number=reader.number),
            keepalive=10.0,
            encoder=encoder,
            on_close=lambda: None,
        )
        self.loop.poller.watch(connection)
        self.loop.admit(connection)
        self.clients.append(Client(connection, theirs))
        return self.clients[-1]

    def publish(self, count: int, *, ours: bool = True) -> None:
        self.commit(count, ours=ours)
        self.arrive()

    def commit(self, count: int, *, ours: bool = True) -> None:
        """Events are in the log, and their notifications on the way."""
        for _ in range(count):
            self.number += 1
            event = self.log.commit(self.number, ours=ours)
            self.coming.append((self.number, event if ours else None))

    def arrive(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """What the listener does; `meanwhile` happens between its steps."""
        while self.coming:
            number, event = self.coming.popleft()
            self.log.begun = number
            meanwhile()
            if event is not None:
                for consumer in self.registry.of(TOPICS[0]):
                    consumer.offer(event)
            meanwhile()
            self.log.offered = number

    def keep_alive(self) -> None:
        """As after a long silence."""
        for audience in self.loop._audiences.values():
            for connection in audience.current:
                connection.put(sse.keepalive(audience.feed.cursor(audience.reader)))
                self.loop.handle([(connection.descriptor, select.EPOLLOUT)])

    def gap(self) -> None:
        for consumer in self.registry.all():
            consumer.offer(REFRESH_EVENT)

    def skip(self, count: int, *, ours: bool = True, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Events are in the log that this process does not read: it goes on after them."""
        self.commit(count, ours=ours)
        self.coming.clear()
        before, self.log.begun = self.log.offered, self.number
        meanwhile()
        for consumer in self.registry.all():
            consumer.skip(before, self.number)
        meanwhile()
        self.log.offered = self.number

    def lose(self, count: int) -> None:
        """A fail-over loses the last commits, and the listener finds out."""
        self.log.lose(count)
        self.coming.clear()
        self.log.begun = self.log.last
        self.gap()
        self.log.offered = self.log.last

    def turn(self) -> None:
        """What the streamer's thread does when it is woken."""
        self.loop.handle(self.loop.poller.wait(0))
        while self.mailbox.told:
            self.loop.broadcast(self.mailbox.told.pop())

    def settle(self) -> list[list[SentEvent]]:
        """Everything that each client gets as things are."""
        events: list[list[SentEvent]] = [[] for _ in self.clients]
        quiet = 0
        while quiet < 2:
            self.turn()
            quiet = 0 if self.log.answer() else quiet + 1
            for client, taken in zip(self.clients, events, strict=True):
                more = client.take()
                taken += more
                quiet = 0 if more else quiet
        return events


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:

        def make(**options: Any) -> Site:
            site = Site(known=10, **options)
            stack.callback(site.stack.close)
            return site

        yield make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def shown(events: list[SentEvent]) -> list[str]:
    return [event.data if event.type == "message" else event.type for event in events]


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def test_a_client_that_comes_back_gets_what_it_missed_and_goes_on(site: Site) -> None:
    site.connect(after=2)
    site.publish(2)
    assert shown(site.settle()[0]) == numbers(3, 12)
    site.publish(1)
    assert shown(site.settle()[0]) == numbers(13, 13)


def test_what_the_feed_still_has_is_not_asked_for(site: Site) -> None:
    site.connect()
    waiting = site.join()  # somebody on the way, for whom it is held
    site.publish(3)
    site.connect(after=11)
    assert [shown(events) for events in site.settle()] == [numbers(11, 13), numbers(12, 13)]
    assert site.log.replays == 0
    waiting.leave()


def test_a_burst_that_the_feed_does_not_hold_is_read_again_by_all(site: Site) -> None:
    for _ in range(3):
        site.connect()
    site.publish(100)
    assert [shown(events) for events in site.settle()] == [numbers(11, 110)] * 3
    assert site.registry.refreshes == 0


def test_where_refilling_is_not_wanted_a_burst_is_a_refresh(make_site: Callable[..., Site]) -> None:
    site = make_site(refill=False)
    site.connect()
    site.publish(100)
    assert shown(site.settle()[0])[0] == "refresh"
    assert site.log.replays == 0


def test_what_the_log_does_not_know_is_a_refresh(site: Site) -> None:
    site.log.pruned_to = 5
    site.connect(after=3)
    assert shown(site.settle()[0]) == ["refresh"]
    site.publish(1)
    assert shown(site.settle()[0]) == numbers(11, 11)
    assert site.registry.refreshes == 1


def test_a_gap_that_is_told_meanwhile_ends_a_replay(site: Site) -> None:
    site.connect(after=2)
    site.turn()
    site.gap()
    site.publish(1)
    assert shown(site.settle()[0])[-2:] == ["refresh", "11"]


def test_a_client_that_waits_for_the_log_is_kept_alive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = site.connect(after=2)
    now = client.connection.since
    monkeypatch.setattr("pgfanout.streams.detached.loop.time.monotonic", lambda: now + 11.0)
    site.loop.keep_alive()
    assert shown(client.take()) == []
    assert client.parser.comments[-1].strip() == "keepalive"
    assert client.parser.last_event_id == "2"
    monkeypatch.undo()
    assert shown(site.settle()[0]) == numbers(3, 10)


def test_a_keepalive_has_the_number_up_to_which_there_was_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = site.connect()
    site.publish(5, ours=False)
    site.settle()
    now = client.connection.since
    monkeypatch.setattr("pgfanout.streams.detached.loop.time.monotonic", lambda: now + 11.0)
    site.loop.keep_alive()
    client.take()
    assert client.parser.comments[-1].strip() == "keepalive"
    assert client.parser.last_event_id == "15"


def test_a_keepalive_tells_a_number_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = site.connect()
    now = client.connection.since
    site.publish(5, ours=False)
    site.settle()
    told = []
    for silence in range(1, 5):
        monkeypatch.setattr("pgfanout.streams.detached.loop.time.monotonic", lambda at=now + 11.0 * silence: at)
        site.loop.keep_alive()
        client.take()
        told.append(client.parser.cursors[-1:])
        if silence == 2:
            site.publish(1, ours=False)
            site.settle()
    assert told == [["15"], ["15"], ["16"], ["16"]]
    assert client.parser.cursors == ["10", "15", "16"]


def test_the_end_reaches_also_those_who_wait_for_the_log(site: Site) -> None:
    site.connect(after=2)
    site.turn()
    for consumer in site.registry.seal():
        consumer.end()
    assert shown(site.settle()[0]) == ["close"]


def test_an_answer_for_a_client_that_has_left_is_nobodys(site: Site) -> None:
    client = site.connect(after=2)
    client.socket.close()
    site.turn()
    assert site.log.answer()
    site.turn()
    assert not site.loop.connections


def test_the_events_of_a_page_are_encoded_once_for_all_who_get_it(site: Site) -> None:
    for _ in range(3):
        site.connect(after=2)
    site.turn()
    while site.log.answer():
        pass
    [page, *_] = (page for *_, page in site.loop._mailbox.answers)
    assert page is not None
    (audience,) = site.loop._audiences.values()
    made = {encoder: audience._framed(page, page.events, encoder) for encoder in sse.ENCODERS.values()}
    for encoder, data in made.items():
        assert audience._framed(page, page.events, encoder) is data
    assert [shown(events) for events in site.settle()] == [numbers(3, 10)] * 3


def test_streams_that_replay_together_get_the_events_each_in_its_form(site: Site) -> None:
    event = Event("orders", b'"<b>"', id="3")
    site.log.events[2] = event
    for encoder in (sse.encode, sse.encode_text, sse.encode, sse.encode_text):
        site.connect(after=2, encoder=encoder)
    firsts = [events[0].data for events in site.settle()]
    assert firsts == ['"<b>"', "<b>", '"<b>"', "<b>"]


def test_an_event_without_a_number_that_came_amid_a_replay_is_told(site: Site) -> None:
    site.log.page_size = 100
    client = site.connect(after=2)
    site.publish(1)
    client.connection.feed.offer(Event("orders", b'"plain"'))
    site.publish(1)
    assert shown(site.settle()[0]) == [*numbers(3, 12), "refresh"]


@pytest.mark.parametrize("after", [3, 12, 20])
def test_a_number_that_the_log_does_not_have_is_a_refresh_at_once(site: Site, after: int) -> None:
    waiting = site.join()  # somebody on the way, for whom the feed holds what comes
    site.log.numbers.discard(3)
    site.publish(1)
    site.number += 3
    site.publish(1)
    site.connect(after=after)
    assert shown(site.settle()[0]) == ["refresh"]
    site.publish(1)
    assert shown(site.settle()[0]) == ["16"]
    waiting.leave()


def test_a_number_that_a_fail_over_has_lost_is_a_refresh_though_the_feed_still_has_its_event(site: Site) -> None:
    waiting = site.join()
    site.publish(3)
    site.lose(2)
    site.publish(2)
    site.connect(after=13)
    assert shown(site.settle()[0]) == ["refresh"]
    waiting.leave()


def test_where_others_notify_as_well_whoever_comes_back_refreshes(site: Site) -> None:
    site.log.complete = False
    site.connect(after=10)
    site.turn()
    assert [known for _, known, *_ in site.log.asked] == [False]


def test_what_the_hub_skips_is_read_in_the_log(site: Site) -> None:
    site.connect()
    waiting = site.join()
    site.publish(2)
    site.skip(30)
    site.publish(1)
    assert shown(site.settle()[0]) == numbers(11, 43)
    site.skip(2, ours=False)
    site.publish(1)
    assert shown(site.settle()[0]) == numbers(46, 46)
    assert site.registry.refreshes == 0
    waiting.leave()


def test_a_client_that_has_left_wants_no_answer(site: Site) -> None:
    client = site.connect(after=2)
    site.turn()
    [(*_, wanted)] = site.log.asked
    assert wanted()
    client.socket.close()
    site.turn()
    assert not wanted()


def test_streams_that_are_cut_want_no_answer(site: Site) -> None:
    site.connect(after=2)
    site.turn()
    [(*_, wanted)] = site.log.asked
    site.loop.cut()
    assert not wanted()


class Following(RuleBasedStateMachine):
    """Clients come, stall and read; events, gaps and answers come: each client gets all, once, or a refresh."""

    @initialize(known=st.integers(0, 8))
    def begin(self, known: int) -> None:
        self.site = Site(known=known)
        # By client, the last number; up to where nothing is missing; both -1 after a refresh.
        self.seen: list[int] = []
        self.has: list[int] = []

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.site.stack.close()

    @rule(count=st.integers(1, 5), ours=st.booleans())
    def commit(self, count: int, ours: bool) -> None:
        self.site.commit(count, ours=ours)

    @rule(what=st.sampled_from(["turn", "keep_alive", "answer", "connect", "nothing"]))
    def arrive(self, what: str) -> None:
        meanwhile = {
            "turn": self.site.turn,
            "keep_alive": self.site.keep_alive,
            "answer": self.site.log.answer,
            "connect": lambda: self.connect(0, True, False) if len(self.seen) < 4 else None,
        }
        self.site.arrive(meanwhile.get(what, lambda: None))

    @rule()
    def keep_alive(self) -> None:
        self.site.keep_alive()

    @precondition(lambda self: len(self.seen) < 4)
    @rule(missed=st.integers(-2, 8), fresh=st.booleans(), small=st.booleans())
    def connect(self, missed: int, fresh: bool, small: bool) -> None:
        after = None if fresh else max(0, self.site.number - missed) if missed >= 0 else 10**9
        begun, known = self.site.log.begun, after is None or self.site.log.had(after)
        self.site.connect(after, small=small)
        self.seen.append(begun - 1 if after is None else after if known else 0)  # what is on its way may come as well
        self.has.append(begun if after is None else after if known else 0)

    @rule(count=st.integers(1, 9), ours=st.booleans())
    def publish(self, count: int, ours: bool) -> None:
        self.site.publish(count, ours=ours)

    @rule()
    def gap(self) -> None:
        self.site.gap()

    @rule(count=st.integers(1, 9), ours=st.booleans(), what=st.sampled_from(["turn", "answer", "nothing"]))
    def skip(self, count: int, ours: bool, what: str) -> None:
        meanwhile = {"turn": self.site.turn, "answer": self.site.log.answer}
        self.site.skip(count, ours=ours, meanwhile=meanwhile.get(what, lambda: None))

    @rule(count=st.integers(1, 4))
    def lose(self, count: int) -> None:
        self.site.lose(count)

    @rule(kept=st.integers(0, 8))
    def prune(self, kept: int) -> None:
        log = self.site.log
        gone = [number for number in log.numbers if number <= self.site.number - kept]
        log.pruned_to = max([log.pruned_to, *gone])

    @rule()
    def answer(self) -> None:
        self.site.log.answer()

    @rule()
    def turn(self) -> None:
        self.site.turn()

    @rule(which=st.integers(0, 3), size=st.integers(1, 200))
    def read(self, which: int, size: int) -> None:
        if which < len(self.seen):
            self.saw(which, self.site.clients[which].take(size))

    @rule()
    def settle(self) -> None:
        for which, events in enumerate(self.site.settle()):
            self.saw(which, events)
            self.nothing_is_missing(which, self.site.log.offered)

    def saw(self, which: int, events: list[SentEvent]) -> None:
        for event in events:
            if event.type == "refresh":
                self.seen[which] = self.has[which] = -1
                continue
            number = int(event.data)
            assert number > self.seen[which]
            self.nothing_is_missing(which, number - 1)
            self.seen[which] = number
            self.has[which] = max(self.has[which], number)
        shown = self.site.clients[which].parser.last_event_id
        if shown and shown.isdigit() and self.site.log.knows(int(shown)):  # another is a refresh when it comes back
            self.nothing_is_missing(which, int(shown))

    def nothing_is_missing(self, which: int, until: int) -> None:
        has = self.has[which]
        if has >= 0:
            assert not [event for event in self.site.log.events if has < number_of(event) <= until]


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_page_that_was_read_before_a_fail_over_does_not_come_after_its_refresh(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    client = site.connect(after=6)
    assert site.log.answer()  # the log vouches for the number, and has the rest
    site.loop._mailbox.answers.clear()  # ... which the streamer has not come to
    client.connection.reader.known, client.connection.reader.asked = True, None
    site.loop._due[client.connection] = None
    site.loop._work()
    assert site.log.answer()
    site.lose(2)
    site.publish(1)
    (events,) = site.settle()
    types = [event.type for event in events]
    assert types[0] == "refresh"
    assert [event.data for event in events[1:]] == [str(site.number)]


def test_a_known_number_that_was_lost_is_not_asked_after_the_gap(make_site: Callable[..., Site]) -> None:
    site = make_site()
    client = site.connect(after=6)
    client.connection.reader.known = True
    site.lose(2)
    site.log.asked.clear()
    client.connection.reader.asked = None
    site.loop._due[client.connection] = None
    (events,) = site.settle()
    assert [event.type for event in events] == ["refresh"]
    assert not site.log.asked
