"""Detached streams on real servers: thousands of pages, a handful of threads."""

from __future__ import annotations

import http.client
import json
import re
import resource
import signal
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from pgfanout import PostgresHub
from tests.support.gunicorn import GunicornServer
from tests.support.nginx import NginxServer
from tests.support.processes import session
from tests.support.sse import EventSource, EventStreamParser, SentEvent
from tests.support.wait import eventually
from tests.support.werkzeug import WerkzeugServer

from .conftest import Serve
from .test_gunicorn import LONG, TENANT, request, worker_is_gone

MANY = 1000
LONGER = 60.0
PLAIN = "tests.acceptance.apps.plain:app"

Server = GunicornServer | WerkzeugServer
Open = Callable[..., list[EventSource]]


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many as this process may have: each stream needs one at this end, too."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def open_streams() -> Iterator[Open]:
    """Opens streams at a server's URL, each with its opening comment received; closed after the test."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:

        def start(url: str, count: int, query: str = "", **options: Any) -> list[EventSource]:
            def one(_: int) -> EventSource:
                source = EventSource(f"{url}/events?tenant={TENANT}{query}", timeout=LONGER, **options)
                stack.callback(source.close)
                source.wait_for(lambda source: source.comments or source.ended, LONGER)
                return source

            return list(pool.map(one, range(count)))

        yield start


@pytest.fixture(params=["gthread", "sync", "werkzeug"])
def server(request: pytest.FixtureRequest, serve: Serve, fresh_database_url: str) -> Iterator[Server]:
    """gunicorn with four threads, gunicorn with none, and the development server."""
    if request.param == "werkzeug":
        with WerkzeugServer(PLAIN, env={"DATABASE_URL": fresh_database_url}) as server:
            eventually(lambda: healthz(server.url) == 200)  # no hook starts the hub; streams before that refresh
            yield server
    else:
        yield serve(worker_class=request.param, threads=4 if request.param == "gthread" else None)


def get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=LONG)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def stats(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(get(url, "/stats")[1])
    return answer


def healthz(url: str) -> int:
    return get(url, "/healthz")[0]


def receive(sources: list[EventSource], count: int) -> list[list[str]]:
    """The next so many events' data, of each source."""
    return [[source.next_event(LONGER).data for _ in range(count)] for source in sources]


def test_a_thousand_streams_come_follow_and_go(server: Server, open_streams: Open, fresh_database_url: str) -> None:
    before = stats(server.url)
    sources = open_streams(server.url, MANY)
    now = stats(server.url)
    assert (now["streams"], now["detached"], now["in_threads"]) == (MANY, MANY, 0)
    assert now["descriptors"] <= before["descriptors"] + MANY + 20
    assert now["threads"] <= before["threads"] + 10
    with PostgresHub(fresh_database_url) as hub:
        hub.publish("orders", TENANT, 1)
        hub.publish_many([("orders", TENANT, 2), ("orders", TENANT, 3)])
        assert receive(sources, 3) == [["1", "2", "3"]] * MANY
        for number, source in enumerate(sources[MANY // 2 :]):
            source.reset() if number % 2 else source.close()
        stay = sources[: MANY // 2]
        eventually(lambda: stats(server.url)["streams"] == len(stay))
        hub.publish("orders", TENANT, 4)
        assert receive(stay, 1) == [["4"]] * len(stay)
    assert stats(server.url)["refreshes"] == 0
    end(server, stay)


def end(server: Server, sources: list[EventSource]) -> None:
    """Every stream of a gunicorn ends with close, and its worker is gone; the development server just goes."""
    if isinstance(server, WerkzeugServer):
        server.signal(signal.SIGTERM)
        server.wait(LONG)
        return
    (worker,) = server.worker_pids()
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    eventually(lambda: worker_is_gone(worker), timeout=LONG)
    print(f"\n{len(sources)} detached streams: the worker was gone after {time.monotonic() - begin:.2f} s")
    for source in sources:
        assert source.events_until(lambda event: event.type == "close", LONG)
        assert source.wait_end(LONG)
        assert source.retry is not None


def test_a_thousand_streams_behind_nginx(
    serve: Serve, proxy: Callable[[str], NginxServer], open_streams: Open, fresh_database_url: str
) -> None:
    server = serve(threads=4)
    with proxy(server.url) as front, PostgresHub(fresh_database_url) as hub:
        sources = open_streams(front.url, MANY)
        assert stats(server.url)["detached"] == MANY
        hub.publish("orders", TENANT, 1)
        assert receive(sources, 1) == [["1"]] * MANY
        for source in sources[MANY // 2 :]:
            source.close()
        stay = sources[: MANY // 2]
        eventually(lambda: stats(server.url)["streams"] == len(stay))
        hub.publish("orders", TENANT, 2)
        assert receive(stay, 1) == [["2"]] * len(stay)
        end(server, stay)


def test_streams_through_a_unix_socket(
    serve: Serve, proxy: Callable[[str], NginxServer], open_streams: Open, fresh_database_url: str
) -> None:
    path = session.directory("socket") / "gunicorn"
    server = serve(threads=4, settings=["--bind", f"unix:{path}"])
    with proxy(f"unix:{path}") as front, PostgresHub(fresh_database_url) as hub:
        sources = open_streams(front.url, 20)
        assert stats(server.url)["detached"] == 20
        hub.publish("orders", TENANT, 1)
        assert receive(sources, 1) == [["1"]] * 20
        sources.pop().close()
        eventually(lambda: stats(server.url)["streams"] == 19)
        end(server, sources)


def test_a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection(
    server: Server, fresh_database_url: str
) -> None:
    parts = urlsplit(server.url)
    with (
        socket.create_connection((str(parts.hostname), parts.port or 80), timeout=LONG) as client,
        PostgresHub(fresh_database_url) as hub,
        client.makefile("rb") as received,
    ):
        client.sendall(f"GET /events?tenant={TENANT} HTTP/1.0\r\n\r\n".encode())
        head = [line.strip().lower() for line in iter(received.readline, b"\r\n")]
        chunked = b"transfer-encoding: chunked" in head  # the development server does that, whoever asks
        while b"open" not in received.readline():
            pass
        hub.publish("orders", TENANT, "hello")
        body = b""
        while b'data: "hello"' not in body:
            body += received.readline()
        assert bool(re.search(rb"^[0-9a-f]+\r$", body, re.MULTILINE)) is chunked
        assert stats(server.url)["detached"] == 1


def test_requests_are_answered_while_every_stream_receives(
    serve: Serve, open_streams: Open, fresh_database_url: str
) -> None:
    server = serve(threads=4)
    sources = open_streams(server.url, 200)
    with PostgresHub(fresh_database_url) as hub:
        for number in range(20):
            hub.publish("orders", TENANT, number)
            assert request(server, "GET", "/")[2] == b"hello"
    assert receive(sources, 20) == [[str(number) for number in range(20)]] * 200


def test_one_response_may_keep_its_thread(serve: Serve, open_streams: Open) -> None:
    server = serve(threads=4)
    open_streams(server.url, 2)
    open_streams(server.url, 1, "&detach=never")
    now = stats(server.url)
    assert (now["streams"], now["detached"], now["in_threads"]) == (3, 2, 1)
    assert now["kept_in_thread"] == {"it is configured so": 1}


def test_a_middleware_that_hands_the_body_on_is_no_obstacle(serve: Serve, open_streams: Open) -> None:
    server = serve("tests.acceptance.apps.wrapped:watched", threads=4)
    sources = open_streams(server.url, 5)
    assert all(source.headers["x-watched"] == "yes" for source in sources)
    assert stats(server.url)["detached"] == 5


def test_a_middleware_that_changes_the_body_keeps_the_thread(serve: Serve, fresh_database_url: str) -> None:
    server = serve("tests.acceptance.apps.wrapped:compressed", threads=4)
    parser, inflate = EventStreamParser(), zlib.decompressobj()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=LONG)
    connection.request("GET", f"/events?tenant={TENANT}")
    response = connection.getresponse()
    while not parser.comments:
        parser.feed(inflate.decompress(response.read1()))
    with PostgresHub(fresh_database_url) as hub:
        hub.publish("orders", TENANT, "hello")
        events: list[SentEvent] = []
        while not events:
            events += parser.feed(inflate.decompress(response.read1()))
    assert [event.data for event in events] == ['"hello"']  # it is not told to refresh: it goes on where it was
    response.close()
    connection.close()


def test_a_middleware_that_runs_the_application_in_another_thread_keeps_it(
    serve: Serve, open_streams: Open, fresh_database_url: str
) -> None:
    server = serve("tests.acceptance.apps.wrapped:elsewhere", threads=10)
    sources = open_streams(server.url, 5)
    now = stats(server.url)
    assert (now["streams"], now["detached"], now["in_threads"]) == (5, 0, 5)
    assert now["kept_in_thread"] == {"the response is made or read in another thread than the server's": 5}
    with PostgresHub(fresh_database_url) as hub:
        hub.publish("orders", TENANT, "hello")
    assert receive(sources, 1) == [['"hello"']] * 5
    end(server, sources)


def test_a_default_time_out_of_sockets_holds_up_neither_requests_nor_the_end(serve: Serve, open_streams: Open) -> None:
    server = serve("tests.acceptance.apps.impatient:app", threads=4)
    sources = open_streams(server.url, 20)
    assert stats(server.url)["detached"] == 20
    end(server, sources)


@contextmanager
def tls_server(database_url: str, path: Path, **options: Any) -> Iterator[tuple[GunicornServer, ssl.SSLContext]]:
    """gunicorn with the plain application and a certificate, and what trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(path / "key")
    certificate.cert_chain_pems[0].write_to_path(path / "certificate")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = ["--keyfile", str(path / "key"), "--certfile", str(path / "certificate")]
    config, env = "tests/acceptance/apps/gunicorn.conf.py", {"DATABASE_URL": database_url}
    with GunicornServer(PLAIN, config=config, env=env, settings=files, tls=True, **options) as server:
        yield server, context


def test_a_client_that_has_left_below_tls_gives_its_place_to_the_next(fresh_database_url: str, tmp_path: Path) -> None:
    """It ends TLS first, as the standard asks, so bytes that nobody reads stand before its end."""

    def stream(server: GunicornServer, context: ssl.SSLContext) -> tuple[ssl.SSLSocket, bytes]:
        plain = socket.create_connection((server.host, server.port), LONG)
        connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
        head = "Host: x\r\nAccept: text/event-stream"
        connection.sendall(f"GET /events?tenant={TENANT} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        received = b""
        while b"\n\n" not in received.partition(b"\r\n\r\n")[2]:
            data = connection.recv(65536)
            received += data
            if not data:
                break
        return connection, received

    with tls_server(fresh_database_url, tmp_path, threads=4) as (server, context):
        for connection, _ in [stream(server, context) for _ in range(2)]:
            connection.setblocking(False)
            with suppress(ssl.SSLWantReadError):
                connection.unwrap()
            connection.close()
        connection, received = stream(server, context)  # keepalives, by which it would be noticed, come after 13 s
        connection.close()
        assert b": open" in received


def test_where_tls_ends_in_the_server_streams_keep_their_threads(fresh_database_url: str, tmp_path: Path) -> None:
    with (
        tls_server(fresh_database_url, tmp_path) as (server, context),
        PostgresHub(fresh_database_url) as hub,
    ):
        connection = http.client.HTTPSConnection(server.host, server.port, timeout=LONG, context=context)
        connection.request("GET", f"/events?tenant={TENANT}")
        response = connection.getresponse()
        assert b"open" in response.readline()
        hub.publish("orders", TENANT, "hello")
        while b'data: "hello"' not in response.readline():
            pass
        other = http.client.HTTPSConnection(server.host, server.port, timeout=LONG, context=context)
        other.request("GET", "/stats")
        assert json.loads(other.getresponse().read())["kept_in_thread"] == {"TLS ends in the server": 1}
        other.close()
        response.close()
        connection.close()


def test_the_access_log_has_a_line_for_each_stream(serve: Serve, open_streams: Open) -> None:
    server = serve(threads=4, settings=["--access-logfile", "-"])
    open_streams(server.url, 3)
    eventually(lambda: server.log.count("GET /events") == 3)
    assert "Traceback" not in server.log


def test_without_descriptors_a_server_refuses_and_goes_on(
    serve: Serve, open_streams: Open, fresh_database_url: str
) -> None:
    server = serve(threads=4, env={"OPEN_FILES": "300"}, settings=["--worker-connections", "150"])
    worker = server.worker_pids()
    sources = open_streams(server.url, 250, headers={"Accept": "text/event-stream"})
    refused = [source for source in sources if source.ended]
    stay = [source for source in sources if not source.ended]
    assert all(source.status == 200 and source.retry for source in refused)
    assert 80 <= len(stay) <= 200 and refused
    with PostgresHub(fresh_database_url) as hub:
        hub.publish("orders", TENANT, 1)
    assert receive(stay, 1) == [["1"]] * len(stay)
    assert request(server, "GET", "/")[2] == b"hello"
    assert server.worker_pids() == worker
    assert "raise the limit" in server.log


def test_the_process_has_its_own_cap(serve: Serve, open_streams: Open) -> None:
    server = serve(threads=4, env={"PGFANOUT_MAX_STREAMS": "10"})
    sources = open_streams(server.url, 14, headers={"Accept": "text/event-stream"})
    assert sum(source.ended for source in sources) == 4
    assert stats(server.url)["streams"] == 10


def test_streams_that_were_left_make_room_at_once(serve: Serve, open_streams: Open) -> None:
    server = serve(threads=4, env={"PGFANOUT_MAX_STREAMS": "10"})
    for _ in range(10):
        sources = open_streams(server.url, 10, headers={"Accept": "text/event-stream"})
        assert not any(source.ended for source in sources)
        for source in sources:
            source.close()


def test_events_of_a_burst_leave_together_and_none_is_lost(
    serve: Serve, open_streams: Open, fresh_database_url: str
) -> None:
    server = serve(threads=4, env={"PGFANOUT_BUFFER_SIZE": "1000"})
    sources = open_streams(server.url, 100)
    with PostgresHub(fresh_database_url) as hub:
        for start in range(0, 500, 100):
            hub.publish_many([("orders", TENANT, start + number) for number in range(100)])
    assert receive(sources, 500) == [[str(number) for number in range(500)]] * 100
