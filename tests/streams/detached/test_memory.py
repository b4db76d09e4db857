"""What a detached stream costs: few objects for the garbage collector, little memory, and nothing once it has ended."""

from __future__ import annotations

import gc
import os
import select
import socket
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

import pytest

from pgfanout import MemoryHub, StreamLimiter
from pgfanout.delivery.feed import Feed
from pgfanout.delivery.reader import Reader
from pgfanout.streams import StreamEndpoint
from pgfanout.streams.detached import DetachedStream
from pgfanout.streams.detached.audience import Audience
from pgfanout.streams.detached.connection import Connection
from pgfanout.streams.detached.streamer import streamer
from pgfanout.streams.limiter import Place

from ...support.detached import PATIENCE, reset, tcp_pair
from ...support.wait import eventually

# Private members: the loop runs without its thread.

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="nothing is detached here")

KEEPALIVE = 5.0
TENANT = uuid.UUID(int=1)
STREAMS = 400
MOST_OBJECTS = 8
MOST_BYTES = 2048
OTHERS = 100
"""Objects besides: the wheel has a dict for each twentieth of a second, and the test has some."""
OURS = (Audience, Connection, DetachedStream, Feed, Place, Reader)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Site:
    """Streams of one hub, opened as a server does that leaves nothing of a request behind."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.hub.start()
        limiter = StreamLimiter(max_streams_per_user=10_000)
        self.endpoint = StreamEndpoint(self.hub, limiter, keepalive=KEEPALIVE)
        self.clients: list[int] = []
        """Descriptors: sockets would be counted."""

    def open(
        self, channel: str, user: int | None = None, ends: Callable[[], tuple[socket.socket, ...]] = tcp_pair
    ) -> None:
        server, client = ends()
        environ = {"gunicorn.socket": server, "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"}
        body = self.endpoint.answer(environ, channel, TENANT, user).body
        assert isinstance(body, DetachedStream)
        item = next(body)
        server.sendall(b"%b%x\r\n%b\r\n" % (HEAD, len(item), item))
        assert next(body, None) is None
        body.close()
        server.close()
        self.clients.append(client.detach())

    def open_many(self, channels: list[str]) -> None:
        """A stream of each channel, which has had an event then."""
        before = self.endpoint.limiter.open
        for number, channel in enumerate(channels):
            self.open(channel, number, socket.socketpair)
        self.publish(channels, len(self.clients) - before)

    def publish(self, channels: list[str], streams: int | None = None) -> None:
        """An event on each channel, which the last so many streams read."""
        self.hub.publish_many([(channel, TENANT, "news") for channel in channels])
        for client in self.clients[-streams if streams else 0 :]:
            received = b""
            while b'"news"' not in received:
                assert select.select([client], [], [], PATIENCE)[0]
                received += os.read(client, 4096)
        self.settle()
        assert self.endpoint.limiter.open == len(self.clients)

    def settle(self) -> None:
        """Return when the streamer has done what there was to do."""
        streamer.close_left(PATIENCE)

    def close(self) -> None:
        self.hub.close()
        assert streamer.wait_until_empty(PATIENCE)
        for client in self.clients:
            os.close(client)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Only counts of references free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def objects() -> Counter[str]:
    """The objects that the collector has, by their types."""
    gc.collect()
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())


def ours() -> dict[str, int]:
    """How many objects of a stream there are."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, OURS))


def channels_of(site: Site) -> list[str]:
    """Names that no cache has to learn any more: those are bounded, and no stream's."""
    channels = [f"channel {number}" for number in range(STREAMS + 10)]
    site.hub.publish_many([(channel, TENANT, "nobody is here") for channel in channels])
    site.open_many(channels[STREAMS:])
    return channels[:STREAMS]


def test_the_collector_has_few_objects_of_a_stream_with_a_topic_of_its_own(site: Site) -> None:
    channels = channels_of(site)
    before = objects()
    site.open_many(channels)
    grown = objects() - before
    assert sum(grown.values()) <= MOST_OBJECTS * STREAMS + OTHERS, grown.most_common(20)


def test_an_event_leaves_nothing_behind(site: Site) -> None:
    channels = channels_of(site)
    site.open_many(channels)
    before = objects()
    site.publish(channels, STREAMS)
    grown = objects() - before
    assert sum(grown.values()) <= OTHERS, grown.most_common(20)


def test_a_stream_with_a_topic_of_its_own_takes_little_memory(site: Site) -> None:
    channels = channels_of(site)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        site.open_many(channels)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= MOST_BYTES * STREAMS


def leave(site: Site) -> None:
    for client in site.clients:
        os.close(client)
    site.clients.clear()
    site.settle()


def reset_all(site: Site) -> None:
    """The streamer finds out when it writes."""
    assert streamer._loop is not None
    with mock.patch.object(streamer._loop.poller, "wait", return_value=[]):
        site.settle()
        for client in site.clients:
            reset(socket.socket(fileno=client))
        site.clients.clear()
        site.hub.publish_many([(channel, TENANT, "news") for channel in ("orders", "stock")])
        eventually(lambda: site.endpoint.limiter.open == 0)


def cut(site: Site) -> None:
    streamer.cut(PATIENCE)


def end(site: Site) -> None:
    site.hub.close()
    assert streamer.wait_until_empty(PATIENCE)


@pytest.mark.parametrize("way", [leave, reset_all, cut, end])
def test_a_stream_that_has_ended_is_gone_without_the_collector(
    site: Site, way: Callable[[Site], None], without_collector: None
) -> None:
    before = ours()
    for channel in ("orders", "orders", "stock"):
        site.open(channel)
    site.publish(["orders", "stock"])
    way(site)
    eventually(lambda: site.endpoint.limiter.open == 0)
    assert streamer.wait_until_empty(PATIENCE)
    eventually(lambda: ours() == before)
