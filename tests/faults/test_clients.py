"""Clients that ask too much, leave at the wrong moment or stop reading, and streams by the thousand."""

from __future__ import annotations

import gc
import http.client
import itertools
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from pgfanout import REFRESH_EVENT, PostgresHub, Subscription
from tests.acceptance.conftest import Serve
from tests.support.ports import LOOPBACK
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Follow
from .worker import LONG, TENANT, ask, assert_gaps_are_told, holds_nothing, inside, publish_end, publishing, settled


class TestClients:
    def test_hundreds_of_head_requests_leave_nothing(self, serve_inside: Serve) -> None:
        server = serve_inside(threads=4)
        connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=LONG)
        for _ in range(300):
            connection.request("HEAD", f"/events?tenant={TENANT}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"")
        connection.close()
        eventually(lambda: holds_nothing(server))

    def test_ordinary_requests_are_answered_while_more_streams_are_asked_for_than_fit(
        self, serve_inside: Serve, follow: Follow
    ) -> None:
        server = serve_inside(threads=8, env={"PGFANOUT_DETACH": "never"})
        taken = [follow(server) for _ in range(6)]
        path = f"/events?tenant={TENANT}"
        with ThreadPoolExecutor(20) as pool:
            asked = [
                pool.submit(ask, server, path, accept=accept)
                for accept in ("text/event-stream", "*/*")
                for _ in range(10)
            ]
            for _ in range(20):
                assert ask(server, "/") == (200, b"hello")
            answers = [each.result(LONG) for each in asked]
        assert [status for status, _ in answers] == [200] * 10 + [503] * 10
        assert all(body.startswith(b"retry: ") for _, body in answers[:10])
        assert inside(server)["streams"] == len(taken)

    def test_clients_that_close_while_a_frame_is_written_to_them_leave_nothing(
        self, detach: str, serve_inside: Serve, follow: Follow, fresh_database_url: str
    ) -> None:
        server = serve_inside(threads=24, env={"PGFANOUT_KEEPALIVE": "0.5"})
        before = settled(server)["threads"]

        def leave(seed: int) -> None:
            chance = random.Random(seed)
            source = EventSource(f"{server.url}/events?tenant={TENANT}")
            for _ in range(chance.randint(1, 20)):
                source.next_event(LONG)
            chance.choice([source.close, source.reset])()

        with publishing(fresh_database_url, 1000, filler=3000), ThreadPoolExecutor(20) as pool:
            list(pool.map(leave, range(200)))
        eventually(lambda: holds_nothing(server))
        assert inside(server)["threads"] == before
        # Every thread that a stream may have is free again.
        for source in [follow(server) for _ in range(22)]:
            source.wait_for(lambda source: source.comments)
        assert ask(server, "/") == (200, b"hello")

    def test_a_reader_that_stops_is_let_go_and_others_miss_nothing(
        self, detach: str, serve_inside: Serve, follow: Follow, fresh_database_url: str
    ) -> None:
        server = serve_inside(threads=4, env={"PGFANOUT_CLIENT_TIMEOUT": "1"})
        steady = follow(server)
        with socket.socket() as slow, PostgresHub(fresh_database_url) as hub:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((LOOPBACK, server.port))
            slow.sendall(f"GET /events?tenant={TENANT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            eventually(lambda: inside(server)["streams"] == 2)
            begin = time.monotonic()
            for first in itertools.count(step=20):
                hub.publish_many([("orders", TENANT, [number, "x" * 7000]) for number in range(first, first + 20)])
                for number in range(first, first + 20):
                    assert json.loads(steady.next_event(LONG).data)[0] == number
                if inside(server)["streams"] == 1:
                    break
                assert time.monotonic() - begin < LONG, "the stalled reader was not let go"
            assert inside(server)["stalled_readers"] == 1
            print(f"\nlet go {time.monotonic() - begin:.1f} s after the first event, {first} events of 7 KB later")
            follow(server).wait_for(lambda source: source.comments)  # in the thread that is free again


class TestChurn:
    """Streams that come and go while events arrive at 3,000 a second."""

    def test_ten_thousand_subscriptions_in_one_process(self, fresh_database_url: str) -> None:
        with PostgresHub(fresh_database_url, buffer_size=1000) as hub:
            steady = hub.subscribe("orders", TENANT)
            subscriptions, threads = count_subscriptions(), threading.active_count()

            def come_and_go(seed: int) -> None:
                for number in range(250):
                    with hub.subscribe("orders", TENANT) as subscription:
                        if (seed + number) % 10 == 0:
                            subscription.get(LONG)

            with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(4) as pool:
                received = reader.submit(numbers, steady)
                with publishing(fresh_database_url, 3000) as sent:
                    list(pool.map(come_and_go, range(4)))
                    memory, begin = psutil.Process().memory_info().rss, time.monotonic()
                    list(pool.map(come_and_go, range(40)))
                    took = time.monotonic() - begin
                publish_end(fresh_database_url, received)
                assert_gaps_are_told(received.result(LONG), sent() - 1)
            assert count_subscriptions() == subscriptions
            assert (hub.stats().subscriptions, hub.stats().reconnects, hub.stats().gaps) == (1, 0, 0)
            eventually(lambda: threading.active_count() <= threads)
            grown = (psutil.Process().memory_info().rss - memory) / 2**20
            assert grown < 10, f"{grown:.1f} MiB more than before"
            print(f"\n10,000 subscriptions in {took:.1f} s beside {sent()} events, {grown:+.1f} MiB")

    def test_plain_clients_over_http(
        self, detach: str, serve_inside: Serve, follow: Follow, fresh_database_url: str
    ) -> None:
        server = serve_inside(threads=24, env={"PGFANOUT_KEEPALIVE": "0.5"})
        steady = follow(server)
        request = f"GET /events?tenant={TENANT} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

        def come_and_go(until: float) -> int:
            taken = 0
            while time.monotonic() < until:
                with socket.create_connection((LOOPBACK, server.port), LONG) as client:
                    client.sendall(request)
                    taken += client.recv(12) == b"HTTP/1.1 200"
            return taken

        def churn(seconds: float) -> int:
            return sum(pool.map(come_and_go, [time.monotonic() + seconds] * 6))

        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(6) as pool:
            received = reader.submit(steady.events_until, lambda event: event.data == '"end"', 2 * LONG)
            with publishing(fresh_database_url, 3000) as sent:
                warm = churn(3)
                before = settled(server)
                taken = churn(7)
            publish_end(fresh_database_url, received)
            *events, _ = received.result(LONG)
            told = [None if event.type == "refresh" else json.loads(event.data)[0] for event in events]
        assert_gaps_are_told(told, sent() - 1)
        steady.close()
        eventually(lambda: holds_nothing(server))
        after = inside(server)
        assert set(after["threads"]) <= set(before["threads"]) and after["reconnects"] == 0
        grown = (after["memory"] - before["memory"]) / 2**20
        assert warm > 0 and taken > 100 and grown < 10, f"{grown:.1f} MiB more than before"
        print(f"\n{warm + taken} streams in 10 s beside {sent()} events, {grown:+.1f} MiB")


def count_subscriptions() -> int:
    gc.collect()
    return sum(type(each) is Subscription for each in gc.get_objects())


def numbers(subscription: Subscription) -> list[int | None]:
    """The numbers of the events up to the end; None for a refresh."""
    seen: list[int | None] = []
    for event in subscription:
        if event.payload == b'"end"':
            break
        seen.append(None if event is REFRESH_EVENT else event.json()[0])
    return seen
