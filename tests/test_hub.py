"""NotifyHub: what is the same for every backend and needs none to be shown."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import queue
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, HubStats, MemoryHub, NotifyHub, Subscription
from pgfanout.backend import Backend, Sink
from pgfanout.delivery.backlog import Backlog
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.intake import TextIntake
from pgfanout.envelope import encode
from pgfanout.errors import (
    HubClosedError,
    HubConfigurationError,
    HubTimeoutError,
    InvalidEventError,
    PayloadTooLargeError,
    PgFanoutError,
)
from pgfanout.event import Event
from pgfanout.hub import core_of, live_hubs
from pgfanout.topic import topics
from tests.support.shown import everything_shown

from .support.wait import eventually

PATIENCE = 20.0
TENANT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
SECRET = "s3cr3t-m4rk3r"


class ScriptedListener:
    """Listens at once, or never, or fails; whatever the test chose."""

    def __init__(self, sink: Sink, behaviour: Callable[[Sink], object]) -> None:
        self.sink = sink
        self.behaviour = behaviour
        self.stopped = threading.Event()

    def run(self) -> None:
        self.behaviour(self.sink)
        self.stopped.wait()

    def stop(self) -> None:
        self.stopped.set()

    def abandon(self) -> None:
        """There is no connection."""


class ScriptedBackend(Backend):
    """Notes what it is asked to do."""

    def __init__(self, hub: ScriptedHub) -> None:
        self.hub = hub

    def new_listener(self, sink: Sink) -> ScriptedListener:
        return ScriptedListener(sink, self.hub.behaviour)

    def send(self, texts: Sequence[str], executor: Any) -> None:
        self.hub.sent.append((list(texts), executor))

    def close(self, timeout: float) -> None:
        self.hub.sender_closed.append(timeout)


class ScriptedHub(NotifyHub):
    """A hub whose listener does what the test chose; the test reports what it hears."""

    def __init__(self, behaviour: Callable[[Sink], object] = Sink.listening, *, buffer_size: int = 32) -> None:
        self.behaviour = behaviour
        self.sent: list[tuple[list[str], Any]] = []
        self.sender_closed: list[float] = []
        super().__init__(lambda: ScriptedBackend(self), buffer_size=buffer_size)

    def receive(self, texts: Sequence[str]) -> None:
        core_of(self).sink.receive(texts)


def never_listen(sink: Sink) -> None:
    """The behaviour of a listener whose server doesn't answer."""


def fail(sink: Sink) -> None:
    raise HubConfigurationError("wrong password")


@pytest.fixture
def hub() -> Iterator[ScriptedHub]:
    hub = ScriptedHub()
    with hub:
        yield hub


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def text(payload: object = None, channel: str = "orders", tenant: uuid.UUID = TENANT) -> str:
    return encode(Event(channel, json.dumps(payload).encode()), str(tenant))


def waiting(subscription: Subscription) -> list[Event]:
    """What a subscription has now."""
    try:
        return subscription.get_all(timeout=0)
    except queue.Empty:
        return []


# Making one.


def test_making_a_hub_starts_nothing() -> None:
    before = threading.enumerate()
    hub = MemoryHub()
    assert set(threading.enumerate()) <= set(before)
    assert (hub.listening, hub.closed) == (False, False)


@pytest.mark.parametrize("size", [0, -3])
def test_a_hub_refuses_a_buffer_that_holds_nothing(size: int) -> None:
    with pytest.raises(ValueError, match=f"buffer_size has to be at least 1, not {size}"):
        MemoryHub(buffer_size=size)


@pytest.mark.parametrize("size", [0, -1])
def test_a_bound_in_bytes_is_at_least_1(size: int) -> None:
    with pytest.raises(ValueError, match=f"buffer_bytes has to be at least 1, not {size}"):
        MemoryHub(buffer_bytes=size)


def test_a_hub_has_the_bound_in_bytes_that_it_was_given_and_256_kib_by_default() -> None:
    with MemoryHub() as hub, MemoryHub(buffer_bytes=7) as small:
        assert hub.subscribe("orders", TENANT).buffer_bytes == 262_144
        assert small.subscribe("orders", TENANT).buffer_bytes == 7


def test_subscriptions_have_the_hubs_buffer_size_and_32_by_default() -> None:
    with MemoryHub() as small, MemoryHub(buffer_size=7) as smaller:
        assert small.subscribe("orders", TENANT).buffer_size == 32
        assert smaller.subscribe("orders", TENANT).buffer_size == 7


def test_the_interface_alone_makes_no_hub() -> None:
    with pytest.raises(TypeError):
        NotifyHub()  # type: ignore[call-arg]


def test_a_server_finds_the_hubs_that_it_has_to_close() -> None:
    hub = MemoryHub()
    assert hub in live_hubs()


def test_a_hub_that_is_dropped_is_forgotten_in_spite_of_its_fork_hook() -> None:
    ref = weakref.ref(MemoryHub())
    gc.collect()
    assert ref() is None
    assert all(hub is not None for hub in live_hubs())


def test_a_hub_that_listens_is_found_though_only_its_subscription_was_kept() -> None:
    others = live_hubs()
    subscription = MemoryHub().subscribe("orders", TENANT)
    gc.collect()
    [hub] = [hub for hub in live_hubs() if hub not in others]
    hub.close()
    assert subscription.get(timeout=PATIENCE) is CLOSE_EVENT
    ref = weakref.ref(hub)
    del hub
    gc.collect()
    assert ref() is None


def test_hubs_can_be_listed_while_others_are_made(pool: ThreadPoolExecutor) -> None:
    def make() -> None:
        for _ in range(200):
            MemoryHub()

    futures = [pool.submit(make) for _ in range(2)]
    while not all(future.done() for future in futures):
        live_hubs()
    assert [future.result(PATIENCE) for future in futures] == [None, None]


# Starting.


def test_start_runs_the_listener_once(hub: ScriptedHub) -> None:
    hub.start()
    hub.start(0)
    assert hub.listening
    assert hub.stats().reconnects == 0


def test_start_tells_that_its_time_was_over() -> None:
    with ScriptedHub(never_listen) as hub, pytest.raises(HubTimeoutError, match="not listening after 0 s"):
        hub.start(timeout=0)


def test_start_tells_what_waiting_will_not_cure() -> None:
    with ScriptedHub(fail) as hub, pytest.raises(HubConfigurationError, match="wrong password"):
        hub.start()


def test_subscribing_starts_the_hub(hub: ScriptedHub) -> None:
    hub.subscribe("orders", TENANT)
    assert hub.listening


def test_a_subscription_that_could_not_start_the_hub_does_not_exist() -> None:
    with ScriptedHub(never_listen) as hub:
        with pytest.raises(HubTimeoutError, match="after 0 s"):
            hub.subscribe("orders", TENANT, start_timeout=0)
        assert hub.stats().subscriptions == 0


@pytest.mark.parametrize(
    ("channels", "tenant"), [("", TENANT), ([], TENANT), (["a", "b\n"], TENANT), ("orders", ""), ("orders", [])]
)
def test_an_invalid_subscription_starts_nothing(hub: ScriptedHub, channels: Any, tenant: Any) -> None:
    with pytest.raises(InvalidEventError):
        hub.subscribe(channels, tenant)
    assert not hub.listening
    assert hub.stats().subscriptions == 0


# Running in the foreground.


def test_run_returns_after_the_close_and_leaves_the_hub_closed(hub: ScriptedHub, pool: ThreadPoolExecutor) -> None:
    future = pool.submit(hub.run)
    eventually(lambda: hub.listening)
    hub.close()
    assert future.result(PATIENCE) is None
    assert hub.closed


def test_a_run_that_fails_leaves_the_hub_closed() -> None:
    hub = ScriptedHub(fail)
    with pytest.raises(HubConfigurationError, match="wrong password"):
        hub.run()
    assert hub.closed


def test_a_run_that_is_interrupted_ends_every_subscription(pool: ThreadPoolExecutor) -> None:
    go = threading.Event()

    def listen_until_interrupted(sink: Sink) -> None:
        sink.listening()
        assert go.wait(PATIENCE)
        raise KeyboardInterrupt

    hub = ScriptedHub(listen_until_interrupted)
    future = pool.submit(hub.run)
    subscription = hub.subscribe("orders", TENANT)
    go.set()
    assert isinstance(future.exception(PATIENCE), KeyboardInterrupt)
    assert subscription.get(PATIENCE) is CLOSE_EVENT
    assert hub.closed


def test_a_start_whose_time_is_over_does_not_close_a_hub_that_runs(pool: ThreadPoolExecutor) -> None:
    begun, go = threading.Event(), threading.Event()

    def listen_later(sink: Sink) -> None:
        begun.set()
        assert go.wait(PATIENCE)
        sink.listening()

    with ScriptedHub(listen_later) as hub:
        future = pool.submit(hub.run)
        assert begun.wait(PATIENCE)
        with pytest.raises(HubTimeoutError):
            hub.start(0)
        go.set()
        hub.start(PATIENCE)
        assert hub.listening
        hub.close()
        assert future.result(PATIENCE) is None


def test_a_closed_hub_cannot_run(hub: ScriptedHub) -> None:
    hub.close()
    with pytest.raises(HubClosedError):
        hub.run()


# Closing.


def test_closing_ends_every_subscription_before_it_waits_for_the_listener(pool: ThreadPoolExecutor) -> None:
    release = threading.Event()

    def hang(sink: Sink) -> None:
        sink.listening()
        assert release.wait(PATIENCE)

    hub = ScriptedHub(hang)
    subscription = hub.subscribe("orders", TENANT)
    closing = pool.submit(hub.close, PATIENCE)
    assert subscription.get(PATIENCE) is CLOSE_EVENT
    assert not closing.done()
    release.set()
    assert closing.result(PATIENCE) is None


def test_a_close_that_was_interrupted_is_finished_by_the_next(
    hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriptions = [hub.subscribe("orders", TENANT) for _ in range(3)]
    end, calls = Backlog.end, []

    def interrupted(backlog: Backlog, *, drop: bool = False) -> None:
        calls.append(backlog)
        if len(calls) == 2:
            raise TimeoutError("alarm")
        end(backlog, drop=drop)

    monkeypatch.setattr(Backlog, "end", interrupted)
    with pytest.raises(TimeoutError, match="alarm"):
        hub.close()
    hub.close()
    assert [subscription.get(PATIENCE) for subscription in subscriptions] == [CLOSE_EVENT] * 3


def test_closing_gives_the_sender_the_time_that_is_left(hub: ScriptedHub) -> None:
    hub.start()
    hub.close(timeout=5.0)
    (left,) = hub.sender_closed
    assert 0 < left <= 5.0


def test_closing_without_time_tells_what_it_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def hang(hub: Sink) -> None:
        hub.listening()
        assert release.wait(PATIENCE)

    hub = ScriptedHub(hang)
    hub.start()
    hub.close(timeout=0)
    assert hub.closed
    assert hub.sender_closed == [0.0]
    assert "did not stop within 0 s" in caplog.text
    release.set()
    hub.close()


def test_the_end_of_a_with_block_closes() -> None:
    with MemoryHub() as hub:
        subscription = hub.subscribe("orders", TENANT)
        before = hub.closed
    assert (before, hub.closed) == (False, True)
    assert list(subscription) == [CLOSE_EVENT]


def test_a_with_block_hides_no_error() -> None:
    hub = MemoryHub()
    with pytest.raises(LookupError), hub:
        raise LookupError
    assert hub.closed


def test_the_parts_of_a_closed_hub_refuse(hub: ScriptedHub) -> None:
    hub.close()
    for call in (
        hub.start,
        lambda: hub.subscribe("orders", TENANT),
        lambda: hub.publish("orders", TENANT, 1),
        lambda: hub.publish_many([("orders", TENANT, 1)]),
        lambda: hub.publish_many([]),
    ):
        with pytest.raises(HubClosedError):
            call()
    assert hub.sent == []


# Publishing.


def test_what_is_published_is_sent_as_an_envelope_through_the_executor(hub: ScriptedHub) -> None:
    executor: Any = object()
    hub.publish("orders", str(TENANT).upper(), {"id": 42}, type="order.created", executor=executor)
    (((sent,), through),) = hub.sent
    fields = json.loads(sent)
    assert through is executor
    assert fields.pop("id")
    assert fields == {
        "channel": "orders",
        "tenant_id": str(TENANT),
        "payload": {"id": 42},
        "type": "order.created",
    }


def test_publishing_needs_no_listener(hub: ScriptedHub) -> None:
    hub.publish("orders", TENANT, 1)
    assert len(hub.sent) == 1
    assert not hub.listening


def test_what_is_published_before_anyone_listens_is_lost_as_it_is_in_postgresql() -> None:
    with MemoryHub() as hub:
        hub.publish("orders", TENANT, "before")
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, "after")
        assert subscription.get(PATIENCE).json() == "after"


def test_many_events_are_sent_at_once_in_their_order(hub: ScriptedHub) -> None:
    hub.publish_many((("orders", TENANT, number, f"t{number}") for number in range(3)), executor=None)
    ((texts, _),) = hub.sent
    assert [(json.loads(each)["payload"], json.loads(each)["type"]) for each in texts] == [
        (0, "t0"),
        (1, "t1"),
        (2, "t2"),
    ]


def test_no_events_are_not_sent(hub: ScriptedHub) -> None:
    hub.publish_many([])
    assert hub.sent == []


def test_two_publishes_of_the_same_are_two_notifications(hub: ScriptedHub) -> None:
    hub.publish_many([("orders", TENANT, 1)] * 2)
    ((texts, _),) = hub.sent
    assert len(set(texts)) == 2


REFUSED: list[tuple[str, tuple[Any, ...], type[PgFanoutError]]] = [
    ("channel", ("", TENANT, 1), InvalidEventError),
    ("long channel", ("x" * 64, TENANT, 1), InvalidEventError),
    ("tenant", ("orders", "", 1), InvalidEventError),
    ("reserved", ("orders", TENANT, 1, "refresh"), InvalidEventError),
    ("type", ("orders", TENANT, 1, "a\nb"), InvalidEventError),
    ("not JSON", ("orders", TENANT, b"{"), InvalidEventError),
    ("NUL", ("orders", TENANT, "a\x00b"), InvalidEventError),
    ("object", ("orders", TENANT, object()), InvalidEventError),
    ("too large", ("orders", TENANT, "x" * 8000), PayloadTooLargeError),
]


@pytest.mark.parametrize(("event", "error"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_one_wrong_event_keeps_all_from_being_sent(
    hub: ScriptedHub, event: tuple[Any, ...], error: type[PgFanoutError]
) -> None:
    with pytest.raises(error):
        hub.publish_many([("orders", TENANT, 1), event])
    assert hub.sent == []


@pytest.mark.parametrize(
    "payload",
    [
        SECRET.encode(),
        SECRET.encode() + b"\xff",
        f'"{SECRET}\\u0000"'.encode(),
        {SECRET},
        {"a": SECRET, "b": object()},
        [SECRET, float("nan")],
        SECRET + "\x00",
        SECRET * 1000,
    ],
    ids=["no JSON", "no UTF-8", "NUL in bytes", "set", "object", "NaN", "NUL", "too large"],
)
def test_a_payload_that_is_refused_is_not_shown(hub: ScriptedHub, payload: Any) -> None:
    with pytest.raises(PgFanoutError) as caught:
        hub.publish("orders", TENANT, payload)
    assert SECRET not in everything_shown(caught.value)


@pytest.mark.parametrize("field", ["channel", "type"])
def test_a_payload_is_not_shown_for_the_fault_of_another_part(hub: ScriptedHub, field: str) -> None:
    wrong = {"channel": "orders", field: "\n"}
    with pytest.raises(InvalidEventError) as caught:
        hub.publish(wrong["channel"], TENANT, SECRET * 2, type=wrong.get("type", ""))
    assert SECRET not in everything_shown(caught.value)
    assert caught.value.field == field


@pytest.mark.parametrize("event", [("orders", TENANT), ("orders", TENANT, 1, "t", "more")])
def test_an_event_of_too_few_or_too_many_parts_is_a_mistake(hub: ScriptedHub, event: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        hub.publish_many([("orders", TENANT, 1), event])
    assert hub.sent == []


# Receiving.


def test_a_text_goes_to_the_subscriptions_of_its_topic_and_to_no_other(hub: ScriptedHub) -> None:
    here = hub.subscribe("orders", TENANT)
    both = hub.subscribe(["stock", "orders"], TENANT)
    other_channel = hub.subscribe("stock", TENANT)
    other_tenant = hub.subscribe("orders", OTHER)
    hub.receive([text(1)])
    assert [waiting(each) for each in (here, both, other_channel, other_tenant)] == [
        [Event("orders", b"1")],
        [Event("orders", b"1")],
        [],
        [],
    ]


def test_a_text_that_is_no_envelope_is_a_gap_for_everyone_and_the_rest_goes_on(hub: ScriptedHub) -> None:
    one, other = hub.subscribe("orders", TENANT), hub.subscribe("stock", OTHER)
    hub.receive([text(1), "hello", text(2)])
    assert waiting(one) == [Event("orders", b"1"), REFRESH_EVENT, Event("orders", b"2")]
    assert waiting(other) == [REFRESH_EVENT]
    stats = hub.stats()
    assert (stats.received, stats.undecodable, stats.gaps) == (3, 1, 1)


def test_who_comes_amid_a_batch_misses_nothing_between_two_of_its_events(hub: ScriptedHub) -> None:
    """It sees all of its topics from the same event on."""
    came: list[Subscription] = []

    def texts() -> Iterator[str]:
        yield text(1, "orders")
        came.append(hub.subscribe(["orders", "stock"], TENANT))
        yield from (text(2, "stock"), text(3, "orders"), text(4, "stock"))

    hub.subscribe("orders", TENANT)
    intake = core_of(hub).intake
    assert isinstance(intake, TextIntake)
    intake.receive(texts())
    assert [event.payload for event in waiting(came[0])] == [b"2", b"3", b"4"]


def test_foreign_texts_cannot_fill_the_log_and_are_not_shown(
    hub: ScriptedHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.receive([f'{{"payload": "{SECRET}"', SECRET, "{}"] * 100)
    (message,) = caplog.messages
    assert "not a JSON object" in message
    assert SECRET not in caplog.text
    assert hub.stats().undecodable == 300


def test_a_payload_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), MemoryHub(buffer_size=1) as hub:
        subscription = hub.subscribe("orders", TENANT)
        hub.publish_many([("orders", TENANT, SECRET)] * 3)
        eventually(lambda: hub.stats().received == 3)
        assert waiting(subscription) == [REFRESH_EVENT]
    assert SECRET not in caplog.text


def test_listening_again_is_a_gap_for_everyone() -> None:
    again, relistened = threading.Event(), threading.Event()

    def lose_and_find(sink: Sink) -> None:
        sink.listening()
        assert again.wait(PATIENCE)
        sink.not_listening("the server is gone")
        sink.listening()
        relistened.set()

    with ScriptedHub(lose_and_find) as hub:
        one, other = hub.subscribe("orders", TENANT), hub.subscribe("stock", OTHER)
        assert waiting(one) == []
        again.set()
        assert relistened.wait(PATIENCE)
        assert [waiting(one), waiting(other)] == [[REFRESH_EVENT], [REFRESH_EVENT]]
        stats = hub.stats()
        assert (stats.reconnects, stats.gaps, stats.last_error) == (1, 1, "the server is gone")


def test_a_listener_that_start_gave_up_and_that_comes_up_late_is_no_gap() -> None:
    go_on, done = threading.Event(), threading.Event()
    behaviours: list[Callable[[Sink], object]] = []

    def listen_late(sink: Sink) -> None:
        assert go_on.wait(PATIENCE)
        sink.listening()
        done.set()

    behaviours += [listen_late, Sink.listening]
    with ScriptedHub(lambda sink: behaviours.pop(0)(sink)) as hub:
        with pytest.raises(HubTimeoutError):
            hub.start(0.01)
        subscription = hub.subscribe("orders", TENANT)
        with mock.patch.object(core_of(hub).intake, "catch_up") as catch_up:  # it would take the other's session away
            go_on.set()
            assert done.wait(PATIENCE)
        assert not catch_up.called
        assert (waiting(subscription), hub.stats().gaps) == ([], 0)


def test_whoever_is_there_before_the_first_listening_refreshes_and_nobody_else() -> None:
    go_on = threading.Event()

    def listen_late(sink: Sink) -> None:
        assert go_on.wait(PATIENCE)
        sink.listening()

    with ScriptedHub(listen_late) as hub:
        hub.start_in_background()
        feed, reader = core_of(hub).follow(topics("orders", TENANT), NobodyReads())
        assert feed.early
        go_on.set()
        late = hub.subscribe("orders", TENANT)
        eventually(lambda: not feed.early)
        assert feed.read(reader) == [REFRESH_EVENT]
        later, reader = core_of(hub).follow(topics("stock", TENANT), NobodyReads())
        assert not later.early
        assert (later.read(reader), waiting(late)) == ([], [])


class NobodyReads:
    """A mailbox whose feeds the test reads."""

    def news(self, feed: Feed) -> None:
        pass

    def wake(self) -> None:
        pass


def test_an_outage_can_be_seen_before_it_is_over() -> None:
    def lose(sink: Sink) -> None:
        sink.listening()
        sink.not_listening("the server is gone")

    with ScriptedHub(lose) as hub:
        hub.start()
        eventually(lambda: hub.stats().last_error == "the server is gone")
        assert not hub.listening
        assert not hub.stats().listening


# Counting.


def test_a_new_hub_has_counted_nothing() -> None:
    stats = MemoryHub().stats()
    assert dataclasses.replace(stats, since=0.0) == HubStats(
        listening=False,
        since=0.0,
        reconnects=0,
        last_error="",
        received=0,
        undecodable=0,
        delivered=0,
        refreshes=0,
        gaps=0,
        dead_connections=0,
        stalled_readers=0,
        queue_usage=0.0,
        subscriptions=0,
    )


def test_a_reader_that_stalled_is_counted_once_and_one_that_left_is_not() -> None:
    hub = MemoryHub()
    with hub, hub.subscribe("orders", TENANT) as left, hub.subscribe("orders", TENANT) as stalled:
        left.close()
        stalled.close(stalled=True)
        stalled.close(stalled=True)
        assert stalled.get(0) is CLOSE_EVENT
        stats = hub.stats()
    assert (stats.stalled_readers, stats.subscriptions) == (1, 0)


def test_one_event_to_ten_subscriptions_is_received_once_and_delivered_ten_times(hub: ScriptedHub) -> None:
    subscriptions = [hub.subscribe("orders", TENANT) for _ in range(10)]
    hub.receive([text(1), text(2, channel="nobody's")])
    stats = hub.stats()
    assert (stats.received, stats.delivered, stats.subscriptions) == (2, 10, 10)
    assert all(waiting(each) == [Event("orders", b"1")] for each in subscriptions)


def test_a_backlog_that_a_refresh_replaced_is_counted() -> None:
    with ScriptedHub(buffer_size=2) as hub:
        subscription = hub.subscribe("orders", TENANT)
        hub.receive([text(number) for number in range(4)])
        assert waiting(subscription) == [REFRESH_EVENT, Event("orders", b"3")]
        assert (hub.stats().refreshes, hub.stats().gaps) == (1, 0)


def test_subscriptions_are_counted_while_they_are_open(hub: ScriptedHub) -> None:
    one, _ = hub.subscribe("orders", TENANT), hub.subscribe(["orders", "stock"], TENANT)
    assert hub.stats().subscriptions == 2
    one.close()
    assert hub.stats().subscriptions == 1
    hub.close()
    assert hub.stats().subscriptions == 0


def test_a_snapshot_does_not_change(hub: ScriptedHub) -> None:
    stats = hub.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.received = 1  # type: ignore[misc]
    hub.receive([text(1)])
    assert (stats.received, hub.stats().received) == (0, 1)


# Forking.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_hub_that_was_started_before_a_fork_is_a_new_one_in_the_child() -> None:
    hub = MemoryHub()
    with hub:
        parents = hub.subscribe("orders", TENANT)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, _in_the_child(hub))
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as answer:
            assert answer.read() == b"0 subscriptions, not listening, received 1"
        assert os.waitpid(child, 0)[1] == 0
        hub.publish("orders", TENANT, 2)
        assert parents.get(PATIENCE).json() == 2
        assert hub.stats().received == 1


def _in_the_child(hub: MemoryHub) -> bytes:
    try:
        before = hub.stats()
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, 1)
        listening = "listening" if before.listening else "not listening"
        received = subscription.get(PATIENCE).json()
        return f"{before.subscriptions} subscriptions, {listening}, received {received}".encode()
    except BaseException as error:
        return repr(error).encode()


# The wall between tenants.

TENANTS = [uuid.UUID(int=number) for number in range(1, 4)]
CHANNELS = ["a", "b", "c"]

steps = st.one_of(
    st.tuples(
        st.just("subscribe"),
        st.sampled_from(TENANTS),
        st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True),
    ),
    st.tuples(st.just("publish"), st.sampled_from(TENANTS), st.sampled_from(CHANNELS)),
    st.tuples(st.just("close"), st.integers(0, 9), st.none()),
)


class Visitor:
    """A subscription, and what it should have got by the plainest of models."""

    def __init__(self, hub: NotifyHub, tenant: uuid.UUID, channels: list[str]) -> None:
        self.tenant = tenant
        self.channels = channels
        self.subscription = hub.subscribe(channels, tenant)
        self.expected: list[tuple[str, Any]] = []

    def note(self, tenant: uuid.UUID, channel: str, payload: object) -> None:
        if tenant == self.tenant and channel in self.channels:
            self.expected.append((channel, payload))

    def check(self) -> None:
        assert [(event.channel, event.json()) for event in waiting(self.subscription)] == self.expected
        self.expected = []


@settings(max_examples=60)
@given(st.lists(steps, max_size=40))
def test_everyone_gets_the_events_of_their_own_tenant_and_channels_and_no_others(plan: list[tuple[Any, ...]]) -> None:
    with MemoryHub(buffer_size=1000) as hub:
        clock = hub.subscribe("clock", uuid.UUID(int=99))
        visitors: list[Visitor] = []
        for number, (what, who, which) in enumerate(plan):
            if what == "publish":
                hub.publish(which, who, number)
                for visitor in visitors:
                    visitor.note(who, which, number)
                continue
            settle(hub, clock)
            if what == "subscribe":
                visitors.append(Visitor(hub, who, which))
            elif who < len(visitors):
                visitor = visitors.pop(who)
                visitor.check()
                visitor.subscription.close()
        settle(hub, clock)
        for visitor in visitors:
            visitor.check()


def settle(hub: NotifyHub, clock: Subscription) -> None:
    """Wait until everything that was published has been handed out: one thread does it, in order."""
    hub.publish("clock", uuid.UUID(int=99), "tick")
    assert clock.get(PATIENCE).json() == "tick"
