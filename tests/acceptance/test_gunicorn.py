"""Streams under a real gunicorn: one session, honest ends, threads for everybody else."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from pgfanout import PostgresHub
from tests.support.gunicorn import GunicornServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Serve

TENANT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
LONG = 20.0

Follow = Callable[..., EventSource]


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Opens a stream of a server; closed after the test."""
    with ExitStack() as stack:

        def start(server: GunicornServer, tenant: str = TENANT, query: str = "", **options: Any) -> EventSource:
            source = EventSource(f"{server.url}/events?tenant={tenant}{query}", **options)
            stack.callback(source.close)
            return source

        yield start


def request(
    server: GunicornServer, method: str, path: str, body: object = None, accept: str = "*/*"
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=LONG)
    try:
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json", "Accept": accept},
        )
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def threads_of(worker_class: str, threads: int) -> int:
    """gunicorn takes the threaded worker for a sync one with more than one thread."""
    return 1 if worker_class == "sync" else threads


def publish(server: GunicornServer, payload: object, tenant: str = TENANT) -> None:
    assert request(server, "POST", f"/publish?tenant={tenant}", payload)[0] == 204


def worker_is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_forty_streams_share_one_listening_session(serve: Serve, follow: Follow, fresh_database_url: str) -> None:
    server = serve(threads=44)
    sources = [follow(server) for _ in range(40)]
    publish(server, "to all")
    for source in sources:
        assert source.next_event(LONG).data == '"to all"'
    with psycopg.connect(fresh_database_url) as connection:
        ((count,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR application_name = 'pgfanout-listener'"
        ).fetchall()
    assert count == 1


def test_a_tenants_events_reach_its_own_streams_only(serve: Serve, follow: Follow) -> None:
    server = serve()
    mine, theirs = follow(server), follow(server, OTHER)
    publish(server, 1, OTHER)
    publish(server, 2)
    publish(server, 3, OTHER)
    assert mine.next_event(LONG).data == "2"
    assert [theirs.next_event(LONG).data for _ in range(2)] == ["1", "3"]


def test_the_head_is_what_browsers_and_proxies_need(serve: Serve, follow: Follow) -> None:
    source = follow(serve())
    assert source.status == 200
    assert source.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert source.headers["cache-control"] == "no-cache, no-transform"
    assert source.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize(
    ("sent", "preload", "worker_class"),
    [
        (signal.SIGTERM, False, "gthread"),
        (signal.SIGTERM, True, "gthread"),
        (signal.SIGINT, False, "gthread"),
        (signal.SIGQUIT, False, "gthread"),
        (signal.SIGHUP, False, "gthread"),
        (signal.SIGTERM, False, "sync"),
        (signal.SIGTERM, True, "sync"),
        (signal.SIGINT, False, "sync"),
        (signal.SIGQUIT, False, "sync"),
        (signal.SIGHUP, False, "sync"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_every_stream_gets_close_and_the_worker_leaves(
    serve: Serve, follow: Follow, sent: signal.Signals, preload: bool, worker_class: str
) -> None:
    server = serve(
        threads=threads_of(worker_class, 24),
        preload=preload,
        worker_class=worker_class,
        env={"START_BEFORE_FORK": "1"} if preload else {},
    )
    sources = [follow(server) for _ in range(20)]
    (worker,) = server.worker_pids()
    begin = time.monotonic()
    server.signal(sent)
    eventually(lambda: worker_is_gone(worker), timeout=LONG)  # gunicorn's own graceful time-out is 30 s
    took = time.monotonic() - begin
    for source in sources:
        assert source.events_until(lambda event: event.type == "close", LONG)
        assert source.wait_end(LONG)
        assert source.retry is not None
    print(f"\n{sent.name}: 20 streams closed, the worker was gone after {took:.2f} s")


@pytest.mark.parametrize(
    ("worker_class", "detach", "preload"),
    [("gthread", "auto", False), ("gthread", "never", False), ("gthread", "never", True), ("sync", "auto", False)],
    ids=["detached", "in threads", "in threads, preloaded", "of the sync worker"],
)
def test_every_stream_gets_close_and_the_worker_leaves_when_the_master_is_killed(
    serve: Serve, follow: Follow, worker_class: str, detach: str, preload: bool
) -> None:
    threads, env = threads_of(worker_class, 8), {"PGFANOUT_DETACH": detach}
    server = serve(threads=threads, worker_class=worker_class, preload=preload, env=env)
    sources = [follow(server) for _ in range(5)]
    (worker,) = server.worker_pids()
    begin = time.monotonic()
    server.signal(signal.SIGKILL)
    # The sync worker looks for its master after 15 s, gthread waits 30 s for its threads.
    eventually(lambda: worker_is_gone(worker), timeout=10.0)
    took = time.monotonic() - begin
    for source in sources:
        assert source.events_until(lambda event: event.type == "close", LONG)
        assert source.wait_end(LONG)
        assert source.retry is not None
    print(f"\nthe master was killed: 5 streams closed, the worker was gone after {took:.2f} s")


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_a_worker_without_streams_leaves_when_the_master_is_killed(serve: Serve, worker_class: str) -> None:
    server = serve(worker_class=worker_class, threads=threads_of(worker_class, 8))
    (worker,) = server.worker_pids()
    server.signal(signal.SIGKILL)
    eventually(lambda: worker_is_gone(worker), timeout=10.0)


@pytest.mark.parametrize(
    ("worker_class", "app", "pause"),
    [
        ("sync", "quitting_amid", "0.01"),
        ("sync", "quitting_before", "0.01"),
        ("gthread", "quitting_amid", "0.01"),
        ("gthread", "quitting_amid", "0.5"),
        ("gthread", "quitting_before", "0.01"),
    ],
)
def test_a_worker_that_is_told_to_quit_amid_a_streams_request_ends_the_stream_properly(
    serve: Serve, follow: Follow, worker_class: str, app: str, pause: str
) -> None:
    """A sync worker's own handler raises in the middle of the answer: the connection is lost, or the browser gets 500.
    A gthread worker waits for no answer."""
    threads, env = threads_of(worker_class, 4), {"QUIT_PAUSE": pause}
    server = serve(f"tests.acceptance.apps.wrapped:{app}", worker_class=worker_class, threads=threads, env=env)
    (worker,) = server.worker_pids()
    source = follow(server, headers={"Accept": "text/event-stream"})
    assert source.status == 200
    assert source.wait_end(LONG)
    assert source.retry is not None
    eventually(lambda: worker_is_gone(worker), timeout=10.0)


def test_a_sync_worker_that_is_told_to_quit_does_not_wait_for_a_page_that_hangs(serve: Serve) -> None:
    server = serve("tests.acceptance.apps.wrapped:quitting_amid", worker_class="sync", threads=1)
    (worker,) = server.worker_pids()
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: "the page hangs" in server.log)
        server.signal(signal.SIGQUIT)
        eventually(lambda: worker_is_gone(worker), timeout=10.0)


def test_the_interrupt_handler_leaves_the_thread_pool_alone(serve: Serve) -> None:
    """gthread's own shuts the pool down, and waits for ever when the signal came amid handing it a request."""
    assert request(serve(), "GET", "/interrupt-handler")[2] == b"Worker.handle_quit"


def test_a_worker_that_is_told_to_stop_by_itself_ends_its_streams_too(serve: Serve, follow: Follow) -> None:
    server = serve()
    source = follow(server)
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGTERM)
    assert source.events_until(lambda event: event.type == "close", LONG)
    # A connection that the worker had taken before it left may be reset; a browser comes again.
    again = eventually(lambda: follow(server, last_event_id="start"))
    assert again.next_event(LONG).type == "refresh"


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_max_requests_ends_streams_with_close(serve: Serve, follow: Follow, worker_class: str) -> None:
    threads = threads_of(worker_class, 8)
    server = serve(worker_class=worker_class, threads=threads, settings=["--max-requests", "10"])
    source = follow(server)
    (worker,) = server.worker_pids()
    for _ in range(12):
        with suppress(OSError):  # one that the worker had taken before it left may be reset
            request(server, "GET", "/")
    assert source.events_until(lambda event: event.type == "close", LONG)
    eventually(lambda: worker_is_gone(worker))


def test_a_client_that_stopped_reading_does_not_hold_the_worker(
    serve: Serve, follow: Follow, fresh_database_url: str
) -> None:
    server = serve(threads=8)
    steady = follow(server)
    parts = urlsplit(server.url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((parts.hostname, parts.port))
        slow.sendall(f"GET /events?tenant={TENANT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: request(server, "GET", "/streams")[2] == b"2")
        filler = "x" * 7000
        with PostgresHub(fresh_database_url) as hub:
            for _ in range(60):
                hub.publish_many([("orders", TENANT, filler)] * 20)
            # Told to refresh, it has missed an end; and with much still unread it would not be told to close.
            ends = False
            while not ends:
                hub.publish("orders", TENANT, "end")
                *_, last = steady.events_until(lambda event: event.data == '"end"' or event.type == "refresh", LONG)
                ends = last.data == '"end"'
        (worker,) = server.worker_pids()
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        eventually(lambda: worker_is_gone(worker))
        print(f"\nwith a stalled client the worker was gone after {time.monotonic() - begin:.2f} s")
        assert steady.events_until(lambda event: event.type == "close", LONG)


def test_streams_in_threads_leave_some_to_ordinary_requests(serve: Serve, follow: Follow) -> None:
    server = serve(threads=6, env={"PGFANOUT_DETACH": "never"})
    for _ in range(4):
        follow(server)
    for _ in range(3):
        refused = follow(server, headers={"Accept": "text/event-stream"})
        assert refused.status == 200
        assert refused.wait_end(LONG)
        assert refused.retry is not None
    status, headers, body = request(server, "GET", f"/events?tenant={TENANT}")
    assert (status, body) == (503, b"this process has reached its limit of 4 streams\n")
    assert int(headers["Retry-After"]) >= 1
    assert request(server, "GET", "/")[2] == b"hello"


@pytest.mark.parametrize(
    ("app", "worker_class"), [("ahead", "gthread"), ("ahead", "sync"), ("failing", "gthread"), ("failing", "sync")]
)
def test_clients_that_are_refused_late_and_stay_hold_up_nobody(serve: Serve, app: str, worker_class: str) -> None:
    """gunicorn closes their connections in its main thread, and would wait there for each of them, 2 s long."""
    server = serve(
        f"tests.acceptance.apps.wrapped:{app}", worker_class=worker_class, threads=threads_of(worker_class, 4)
    )
    stay = 2 if (app, worker_class) == ("ahead", "gthread") else 0
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((server.host, server.port))) for _ in range(stay + 6)]
        answers = [bytearray() for _ in clients]
        for client in clients:
            client.sendall(f"GET /events?tenant={TENANT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.setblocking(False)

        def refused() -> int:
            for client, answer in zip(clients, answers, strict=True):
                with suppress(BlockingIOError):
                    answer += client.recv(65536)
            return sum((b"event: close" if app == "ahead" else b": open") in answer for answer in answers)

        if worker_class == "gthread":  # the sync worker takes them one after the other, and then the page
            eventually(lambda: refused() == 6)
        began = time.monotonic()
        assert request(server, "GET", "/")[2] == b"hello"
        assert time.monotonic() - began < 8.0  # and not 12 s


def test_streams_that_were_left_make_room_at_once(serve: Serve, follow: Follow) -> None:
    server = serve(threads=6)
    for _ in range(5):
        for source in [follow(server, headers={"Accept": "text/event-stream"}) for _ in range(4)]:
            source.wait_for(lambda source: source.comments)
            source.close()
    assert request(server, "GET", "/")[2] == b"hello"


def test_a_user_has_streams_of_their_own_number(serve: Serve, follow: Follow) -> None:
    server = serve()
    for _ in range(2):
        follow(server, query="&user=anna")
    status, _, body = request(server, "GET", f"/events?tenant={TENANT}&user=anna")
    assert (status, body) == (429, b"this user has reached the limit of 2 streams\n")
    assert follow(server, query="&user=ben").status == 200


def test_head_requests_take_no_place(serve: Serve) -> None:
    server = serve(threads=4)
    for _ in range(10):
        assert request(server, "HEAD", f"/events?tenant={TENANT}")[0] == 200
    assert request(server, "GET", "/streams")[2] == b"0"


def test_a_stream_that_is_left_frees_its_place_at_the_next_keepalive(serve: Serve, follow: Follow) -> None:
    server = serve(env={"PGFANOUT_KEEPALIVE": "0.1"})
    source = follow(server)
    assert request(server, "GET", "/streams")[2] == b"1"
    source.close()
    eventually(lambda: request(server, "GET", "/streams")[2] == b"0")


def test_a_reconnecting_browser_is_told_to_refresh(serve: Serve, follow: Follow) -> None:
    server = serve()
    first = follow(server)
    publish(server, 1)
    seen = first.next_event(LONG)
    first.close()
    publish(server, "missed")
    again = follow(server, last_event_id=seen.last_event_id)
    assert again.next_event(LONG).type == "refresh"
    publish(server, 2)
    assert again.events_until(lambda event: event.data == "2", LONG)


def test_a_browser_that_got_no_event_yet_still_knows_that_it_reconnects(serve: Serve, follow: Follow) -> None:
    server = serve()
    first = follow(server)
    first.wait_for(lambda source: source.last_event_id)
    assert follow(server, last_event_id=first.last_event_id).next_event(LONG).type == ("refresh")


def test_the_hub_listens_before_the_first_page_asks(serve: Serve, fresh_database_url: str) -> None:
    serve()
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgfanout-listener'"
        eventually(lambda: connection.execute(query).fetchone())


def test_a_cut_listener_refreshes_every_page_and_heals(serve: Serve, follow: Follow, fresh_database_url: str) -> None:
    server = serve()
    sources = [follow(server) for _ in range(3)]
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgfanout-listener'"
        )
    for source in sources:
        assert source.next_event(LONG).type == "refresh"
    publish(server, "live again")
    for source in sources:
        assert source.next_event(LONG).data == '"live again"'
    assert request(server, "GET", "/healthz")[0] == 200


def test_health_tells_why_the_hub_does_not_listen(serve: Serve) -> None:
    url = "postgresql://user:open-sesame@127.0.0.1:1/shop"
    server = serve(env={"DATABASE_URL": url})
    eventually(lambda: b"Connection refused" in request(server, "GET", "/healthz")[2])
    assert request(server, "GET", "/healthz")[0] == 503
    assert "open-sesame" not in server.log
