"""ThreadedStream: what a server gets of a subscription."""

from __future__ import annotations

import gc
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgfanout import CLOSE_EVENT, REFRESH_EVENT, Event, MemoryHub
from pgfanout.delivery.backlog import Backlog
from pgfanout.streams import ThreadedStream, sse
from pgfanout.streams.client import ClientSocket
from pgfanout.streams.threaded import close_dropped, close_left, live_streams

from ..support.sse import EventStreamParser, SentEvent, parse
from ..support.subscriptions import FedSubscription

PATIENCE = 20.0


class WatchedSubscription(FedSubscription):
    """Notes how long its reader is ready to wait, and lets the time pass at once."""

    def __init__(self) -> None:
        super().__init__(8)
        self.waits: list[float | None] = []

    def get_all(self, timeout: float | None = None) -> list[Event]:
        self.waits.append(timeout)
        return super().get_all(0)


@pytest.fixture
def subscription() -> FedSubscription:
    return FedSubscription(8)


@pytest.fixture
def stream(subscription: FedSubscription) -> Iterator[ThreadedStream]:
    stream = ThreadedStream(subscription)
    yield stream
    stream.close()


@pytest.fixture(autouse=True)
def nothing_forgotten() -> Iterator[None]:
    gc.collect()
    close_dropped()
    yield
    gc.collect()
    close_dropped()


def number(value: int) -> Event:
    return Event("orders", str(value).encode())


def test_the_first_item_is_there_before_any_event(stream: ThreadedStream) -> None:
    assert next(stream) == sse.opening()


def test_an_event_is_an_item(stream: ThreadedStream, subscription: FedSubscription) -> None:
    next(stream)
    subscription.offer(number(1))
    assert next(stream) == sse.encode(number(1))


def test_everything_that_waits_goes_out_in_one_write(stream: ThreadedStream, subscription: FedSubscription) -> None:
    next(stream)
    for value in range(3):
        subscription.offer(number(value))
    assert [event.data for event in parse(next(stream))] == ["0", "1", "2"]


def test_a_refresh_that_the_hub_has_put_in_is_an_event(stream: ThreadedStream, subscription: FedSubscription) -> None:
    next(stream)
    subscription.offer(REFRESH_EVENT)
    assert parse(next(stream)) == [SentEvent("refresh", "{}", "")]


def test_a_resumed_stream_starts_with_a_refresh(subscription: FedSubscription) -> None:
    stream = ThreadedStream(subscription, resumed=True)
    subscription.offer(number(1))
    first, second = parse(next(stream)), parse(next(stream))
    assert [event.type for event in first] == ["refresh"]
    assert [event.data for event in second] == ["1"]
    stream.close()


def test_a_stream_that_is_not_resumed_starts_with_no_event(stream: ThreadedStream) -> None:
    assert parse(next(stream)) == []


def test_an_iterator_is_its_own_iterable(stream: ThreadedStream) -> None:
    assert iter(stream) is stream


def test_waiting_for_the_next_item_ends_with_an_event(stream: ThreadedStream, subscription: FedSubscription) -> None:
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, stream)
        subscription.offer(number(1))
        assert future.result(PATIENCE) == sse.encode(number(1))


def test_silence_is_broken_by_a_keepalive_and_the_stream_goes_on(subscription: FedSubscription) -> None:
    stream = ThreadedStream(subscription, keepalive=0.001)
    next(stream)
    assert [next(stream), next(stream)] == [sse.KEEPALIVE] * 2
    subscription.offer(number(1))
    assert sse.encode(number(1)) in (next(stream), next(stream))
    stream.close()


def test_a_keepalive_tells_a_number_once() -> None:
    class Counting(FedSubscription):
        number: int = 40

    subscription = Counting(32)
    stream = ThreadedStream(subscription, keepalive=0.001)
    assert next(stream) == sse.opening(number=40)
    assert [next(stream), next(stream)] == [sse.KEEPALIVE] * 2
    subscription.number = 44
    assert [next(stream), next(stream)] == [sse.keepalive(44), sse.KEEPALIVE]
    subscription.number = 45
    assert next(stream) == sse.keepalive(45)
    stream.close()


def test_streams_do_not_break_the_silence_all_at_once() -> None:
    subscription = WatchedSubscription()
    stream = ThreadedStream(subscription)
    next(stream)
    assert {next(stream) for _ in range(50)} == {sse.KEEPALIVE}
    waits = [wait for wait in subscription.waits if wait is not None]
    assert len(set(waits)) > 1
    assert 13.5 <= min(waits) <= max(waits) <= 15.0
    stream.close()


@pytest.mark.parametrize("keepalive", [0, -1.0, float("nan"), float("inf")])
def test_a_keepalive_of_no_time_is_refused(subscription: FedSubscription, keepalive: float) -> None:
    with pytest.raises(ValueError, match="keepalive is a number of seconds"):
        ThreadedStream(subscription, keepalive=keepalive)
    assert not any(each._source is subscription for each in live_streams())


def test_the_hubs_end_is_told_after_what_waits_and_ends_the_stream(
    stream: ThreadedStream, subscription: FedSubscription
) -> None:
    next(stream)
    subscription.offer(number(1))
    subscription.end()
    parser = EventStreamParser()
    assert [event.type for event in parser.feed(next(stream))] == ["message", "close"]
    assert parser.retry is not None
    assert list(stream) == []
    with pytest.raises(StopIteration):
        next(stream)


def test_browsers_are_sent_away_before_they_are_told_to_close(
    stream: ThreadedStream, subscription: FedSubscription
) -> None:
    next(stream)
    subscription.end()
    farewell = next(stream)
    assert farewell.index(b"retry: ") < farewell.index(b"event: close")


def test_browsers_come_back_at_different_times() -> None:
    retries = [farewell(3.0) for _ in range(50)]
    assert 300 <= min(retries) <= max(retries) <= 3000
    assert len(set(retries)) > 10


def farewell(spread: float) -> int:
    """The reconnecting time, in milliseconds, that a stream leaves at its end."""
    subscription = FedSubscription(1)
    subscription.end()
    stream = ThreadedStream(subscription, retry_spread=spread)
    parser = EventStreamParser()
    for chunk in stream:
        parser.feed(chunk)
    stream.close()
    assert parser.retry is not None
    return parser.retry


def test_the_spread_can_be_chosen() -> None:
    assert all(1000 <= farewell(10.0) <= 10_000 for _ in range(20))
    assert farewell(0.0) == 0


def test_events_that_come_with_the_end_have_their_form(subscription: FedSubscription) -> None:
    stream = ThreadedStream(subscription, encoder=sse.encode_text)
    next(stream)
    subscription.offer(Event("orders", b'"<b>"'))
    subscription.end()
    assert [event.data for event in parse(stream)] == ["<b>", "{}"]
    stream.close()


def test_a_stream_that_ended_before_it_began_opens_and_closes(subscription: FedSubscription) -> None:
    subscription.end()
    stream = ThreadedStream(subscription)
    assert [event.type for event in parse(stream)] == ["close"]
    stream.close()


def test_closing_leaves_the_hub_and_gives_the_place_back() -> None:
    left: list[Backlog] = []
    given_back: list[str] = []
    subscription = FedSubscription(8, lambda backlog, **how: left.append(backlog))
    stream = ThreadedStream(subscription, on_close=lambda: given_back.append("place"))
    stream.close()
    assert subscription.closed
    assert left == [subscription.consumer]
    assert given_back == ["place"]


@pytest.mark.parametrize(
    ("error", "stalled"),
    [
        (TimeoutError(110, "no acknowledgement"), 1),
        (OSError(113, "no route to host"), 1),
        (BrokenPipeError(), 0),
        (ConnectionResetError(), 0),
    ],
)
def test_a_client_that_took_nothing_until_the_kernel_gave_up_is_counted(error: OSError, stalled: int) -> None:
    with MemoryHub() as hub:
        stream = ThreadedStream(hub.subscribe("orders", "11111111-1111-4111-8111-111111111111"))
        try:
            raise error  # as a server's write does
        except OSError:
            stream.close()
        stats = hub.stats()
    assert (stats.stalled_readers, stats.subscriptions) == (stalled, 0)


def test_the_place_is_given_back_once_however_many_close(subscription: FedSubscription) -> None:
    closed: list[str] = []
    stream = ThreadedStream(subscription, on_close=lambda: closed.append("place"))
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(stream.close) for _ in range(8)]:
            future.result(PATIENCE)
    del stream
    close_dropped()
    assert closed == ["place"]


def test_closing_again_is_harmless(stream: ThreadedStream, subscription: FedSubscription) -> None:
    stream.close()
    stream.close()
    assert subscription.closed


def test_a_stream_that_was_never_iterated_can_be_closed(stream: ThreadedStream, subscription: FedSubscription) -> None:
    stream.close()
    assert subscription.get(0) is CLOSE_EVENT


def test_closing_wakes_the_thread_that_waits_for_the_next_item(stream: ThreadedStream) -> None:
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(list, stream)
        stream.close()
        assert [event.type for event in parse(future.result(PATIENCE))] == ["close"]


def test_a_stream_is_alive_until_it_is_closed(stream: ThreadedStream) -> None:
    assert stream in live_streams()
    stream.close()
    assert stream not in live_streams()


def test_streams_can_be_listed_while_others_come_and_go() -> None:
    kept = [ThreadedStream(FedSubscription(1)) for _ in range(1000)]
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            ThreadedStream(FedSubscription(1)).close()

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(come_and_go) for _ in range(4)]
        try:
            lists = [live_streams() for _ in range(200)]
        finally:
            done.set()
        assert [future.result(PATIENCE) for future in futures] == [None] * 4
    assert all(set(kept) <= set(each) for each in lists)
    for stream in kept:
        stream.close()


def test_a_stream_that_was_dropped_is_closed_when_the_next_one_is_asked_for() -> None:
    closed: list[str] = []
    subscription = FedSubscription(1)
    ThreadedStream(subscription, on_close=lambda: closed.append("place"))
    before = subscription.closed
    close_dropped()
    assert (before, subscription.closed) == (False, True)
    assert closed == ["place"]


def test_a_stream_that_was_closed_is_not_closed_again_when_it_is_dropped() -> None:
    closed: list[str] = []
    ThreadedStream(FedSubscription(1), on_close=lambda: closed.append("place")).close()
    gc.collect()
    close_dropped()
    assert closed == ["place"]


def test_a_stream_that_could_not_be_made_is_not_closed_when_it_is_dropped(subscription: FedSubscription) -> None:
    with pytest.raises(ValueError, match="keepalive"):
        ThreadedStream(subscription, keepalive=0)
    gc.collect()
    close_dropped()
    assert not subscription.closed


# What it does with its client's socket.


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    with server, client:
        client.settimeout(PATIENCE)
        yield server, client


def test_cutting_ends_the_connection_under_a_thread_that_is_stuck_in_writing(
    ends: tuple[socket.socket, socket.socket], subscription: FedSubscription
) -> None:
    server, _ = ends
    stream = ThreadedStream(subscription, client=ClientSocket({"gunicorn.socket": server}))

    def write_without_end() -> None:
        while True:
            server.sendall(bytes(65536))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(write_without_end)
        stream.cut()
        assert isinstance(future.exception(PATIENCE), OSError)
    stream.close()


def test_a_stream_without_a_socket_cannot_be_cut_and_goes_on(
    stream: ThreadedStream, subscription: FedSubscription
) -> None:
    stream.cut()
    assert stream.client_has_left() is False
    next(stream)
    subscription.offer(number(1))
    assert next(stream) == sse.encode(number(1))


def test_at_the_end_nothing_more_is_expected_of_the_client(
    ends: tuple[socket.socket, socket.socket], subscription: FedSubscription
) -> None:
    server, client = ends
    stream = ThreadedStream(subscription, client=ClientSocket({"gunicorn.socket": server}))
    subscription.end()
    next(stream)
    next(stream)
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    assert list(stream) == []
    assert server.recv(1) == b""
    server.sendall(b"0")
    assert client.recv(1) == b"0"
    stream.close()


def test_streams_whose_clients_have_left_are_closed_and_the_others_stay(
    ends: tuple[socket.socket, socket.socket], stream: ThreadedStream
) -> None:
    server, client = ends
    subscription = FedSubscription(1)
    left = ThreadedStream(subscription, client=ClientSocket({"gunicorn.socket": server}))
    assert close_left() is False
    client.close()
    assert left.client_has_left()
    assert close_left() is True
    assert subscription.closed
    assert left not in live_streams()
    assert stream in live_streams()
    assert close_left() is False


def drain(subscription: FedSubscription) -> list[Event]:
    try:
        return subscription.get_all(0)
    except queue.Empty:
        return []


@pytest.mark.parametrize("finish", [FedSubscription.end, FedSubscription.close])
def test_every_way_to_end_is_told_to_the_browser(finish: Callable[[FedSubscription], None]) -> None:
    subscription = FedSubscription(4)
    stream = ThreadedStream(subscription)
    next(stream)
    finish(subscription)
    assert [event.type for event in parse(stream)] == ["close"]
    assert drain(subscription) == [CLOSE_EVENT]
    stream.close()
