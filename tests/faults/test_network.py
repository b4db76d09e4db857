"""What networks do: packets that are lost without a word, connections that are cut, silent, late, slow or damaged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from pgfanout import REFRESH_EVENT, HubTimeoutError, PostgresHub, Subscription
from tests.acceptance.conftest import Serve
from tests.support import netns
from tests.support.netns import NetworkNamespace
from tests.support.postgres import MakeServer, PostgresServer
from tests.support.sse import EventSource
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually

from .conftest import Follow
from .worker import LONG, TENANT, ask, assert_gaps_are_told, publishing

SLACK = 3.0  # seconds that a noisy machine may add to a limit
HEARTBEATS_AWAY = 10.0  # a limit that no heartbeat of a minute can meet


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    if reason := netns.missing_reason():
        pytest.skip(reason)  # with CI=true as well: no package could bring the permission
    with NetworkNamespace() as namespace:
        yield namespace


@pytest.fixture
def far_server(namespace: NetworkNamespace, make_server: MakeServer) -> PostgresServer:
    """A PostgreSQL server behind a link that can be lost."""
    server = make_server(host=namespace.inside, hba=["host all all samenet trust"])
    namespace.run(server.start)
    return server


@pytest.fixture
def proxy(fresh_database_url: str) -> Iterator[TcpProxy]:
    parts = urlsplit(fresh_database_url)
    with TcpProxy(str(parts.hostname), parts.port or 0) as proxy:
        yield proxy


def told(subscription: Subscription) -> bool:
    return subscription.get(LONG) is REFRESH_EVENT


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        pytest.param({}, 10.0 + SLACK, id="defaults"),
        pytest.param({"heartbeat": 0.5, "heartbeat_timeout": 0.5}, 5.0, id="half a second"),
    ],
)
def test_a_server_whose_packets_are_lost_is_found_missing_in_time_and_found_again(
    namespace: NetworkNamespace, far_server: PostgresServer, options: dict[str, Any], limit: float
) -> None:
    with PostgresHub(far_server.url(), **options) as hub:
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, "before")
        assert subscription.get(LONG).json() == "before"
        namespace.down()
        lost = time.monotonic()
        eventually(lambda: not hub.listening, limit)
        found = time.monotonic()
        assert hub.stats().last_error
        namespace.up()
        joined = time.monotonic()
        assert told(subscription)
        print(f"found after {found - lost:.1f} s, back {time.monotonic() - joined:.1f} s after the link")
        assert hub.listening
        hub.publish("orders", TENANT, "after")
        assert subscription.get(LONG).json() == "after"


def test_the_stream_of_a_client_that_vanished_is_let_go_and_the_others_go_on(
    namespace: NetworkNamespace, detach: str, serve: Serve, follow: Follow
) -> None:
    client_timeout, keepalive = 2.0, 0.5
    env = {"PGFANOUT_CLIENT_TIMEOUT": str(client_timeout), "PGFANOUT_KEEPALIVE": str(keepalive)}
    server = serve(host=namespace.outside, env=env)
    stays = follow(server)
    with namespace.run(lambda: EventSource(f"{server.url}/events?tenant={TENANT}")) as vanishes:
        vanishes.wait_for(lambda source: source.comments)
        assert ask(server, "/streams") == (200, b"2")
        namespace.down()
        lost = time.monotonic()
        eventually(lambda: ask(server, "/streams") == (200, b"1"), client_timeout + 10 * keepalive)
        print(f"let go after {time.monotonic() - lost:.1f} s")
    ask(server, f"/publish?tenant={TENANT}", "POST")
    assert stays.next_event(LONG).data == "1"


def not_listening(hub: PostgresHub, caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    return lambda: not hub.listening


def lost_once(hub: PostgresHub, caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    return lambda: hub.stats().reconnects > 0


def tried_thrice(hub: PostgresHub, caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    return lambda: sum("trying again in" in record.message for record in caplog.records) >= 3


def heard_hundreds(hub: PostgresHub, caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    enough = hub.stats().received + 300
    return lambda: hub.stats().received >= enough


def gap_told(hub: PostgresHub, caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    return lambda: hub.stats().gaps > 0


def refuse(proxy: TcpProxy) -> None:
    proxy.refuse()
    proxy.cut()


def corrupt(proxy: TcpProxy) -> None:
    # The filler of a payload; no byte of it can be UTF-8 any more.
    proxy.corrupt(b"xxxx", b"\xff\xfe\xc3\xff", times=3)


Shown = Callable[[PostgresHub, pytest.LogCaptureFixture], Callable[[], bool]]
Fault = Callable[[TcpProxy], None]


@pytest.mark.parametrize(
    ("fault", "shown", "gaps"),
    [
        pytest.param(TcpProxy.cut, lost_once, True, id="cut"),
        pytest.param(TcpProxy.freeze, not_listening, True, id="freeze"),
        pytest.param(refuse, tried_thrice, True, id="refuse"),
        pytest.param(lambda proxy: proxy.delay(0.2), heard_hundreds, False, id="delay"),
        pytest.param(lambda proxy: proxy.dribble(7, 0.0), heard_hundreds, False, id="dribble"),
        pytest.param(lambda proxy: proxy.dribble(7, 0.05), not_listening, True, id="dribble slowly"),
        pytest.param(corrupt, gap_told, True, id="corrupt"),
    ],
)
def test_what_a_network_loses_is_told_and_what_it_only_delays_is_not(
    fresh_database_url: str,
    proxy: TcpProxy,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    shown: Shown,
    gaps: bool,
) -> None:
    caplog.set_level(logging.DEBUG, "pgfanout")
    with live_hub(proxy.through(fresh_database_url)) as (hub, subscription):
        with publishing(fresh_database_url, 300, filler=4) as sent:
            first = subscription.get(LONG).json()[0]
            seen = shown(hub, caplog)
            fault(proxy)
            eventually(seen, LONG)
            proxy.heal()
            eventually(lambda: hub.listening, LONG)
            # A gap that is told a second after the last one covers what comes until then.
            enough = sent() + (600 if fault is corrupt else 100)
            eventually(lambda: sent() >= enough)
        final = sent() - 1
        events = [first, *read_to(subscription, final)]
        assert hub.listening
        assert_gaps_are_told(events, final)
        assert_only_forward(events)
        assert (None in events) is gaps


@contextmanager
def live_hub(url: str) -> Iterator[tuple[PostgresHub, Subscription]]:
    """A hub that finds a dead connection soon, with a subscription that never overflows."""
    with PostgresHub(url, buffer_size=100_000, heartbeat=0.3, heartbeat_timeout=1.5) as hub:
        yield hub, hub.subscribe("orders", TENANT)


def read_to(subscription: Subscription, final: int) -> list[int | None]:
    """The numbers up to the final one, None for a refresh."""
    events: list[int | None] = []
    while not events or events[-1] != final:
        event = subscription.get(LONG)
        events.append(None if event is REFRESH_EVENT else event.json()[0])
    return events


def assert_only_forward(events: list[int | None]) -> None:
    numbers = [number for number in events if number is not None]
    assert numbers == sorted(set(numbers))


def test_a_damaged_notification_between_good_ones_is_a_gap_and_keeps_none_of_them_waiting(
    fresh_database_url: str, proxy: TcpProxy
) -> None:
    with PostgresHub(proxy.through(fresh_database_url), heartbeat=60.0) as hub:
        subscription = hub.subscribe("orders", TENANT)
        proxy.corrupt(b"damaged", b"d\xffmaged")
        hub.publish_many([("orders", TENANT, payload) for payload in ("before", "damaged", "after")])
        events = [subscription.get(HEARTBEATS_AWAY)]
        while events[-1] is REFRESH_EVENT or events[-1].json() != "after":
            events.append(subscription.get(HEARTBEATS_AWAY))
        # The damaged one's neighbours in the batch may share its fate, if it is told in their place.
        assert REFRESH_EVENT in events
        assert hub.stats().reconnects == 0


def test_a_dead_connection_is_counted_once_and_not_for_each_attempt_that_follows(
    fresh_database_url: str, proxy: TcpProxy
) -> None:
    with live_hub(proxy.through(fresh_database_url)) as (hub, subscription):
        proxy.refuse()
        proxy.strand()
        eventually(lambda: "did not answer within" in hub.stats().last_error, LONG)
        eventually(lambda: "did not answer within" not in hub.stats().last_error, LONG)
        assert hub.stats().dead_connections == 1
        proxy.heal()
        assert told(subscription)
        assert hub.stats().reconnects == 1


STAGES = [
    pytest.param("application_name = 'pgfanout-probe'", id="as the probe connects"),
    pytest.param("application_name = 'pgfanout-probe' AND query LIKE '%pg_notify%'", id="as the probe notifies"),
]


@pytest.fixture
def reaches(fresh_database_url: str) -> Iterator[Callable[[str], None]]:
    """Waits until there is a session of such a kind."""
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:

        def wait(stage: str) -> None:
            query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {stage}"
            eventually(lambda: connection.execute(query.encode()).fetchone(), LONG, interval=0.005)

        yield wait


@pytest.mark.parametrize("fault", [TcpProxy.freeze, TcpProxy.cut], ids=["frozen", "cut"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_proof_that_gets_no_answer_is_given_up_and_tried_again(
    fresh_database_url: str, proxy: TcpProxy, reaches: Callable[[str], None], stage: str, fault: Fault
) -> None:
    with live_hub(proxy.through(fresh_database_url)) as (hub, subscription):
        proxy.delay(0.1)  # so that there is a moment at which to strike
        proxy.cut()
        reaches(stage)
        assert not hub.listening
        fault(proxy)
        if fault is TcpProxy.freeze:
            # Connections that the hub has given up stay with the proxy; the third is a new attempt.
            eventually(lambda: proxy.connections >= 3, timeout=15.0)
        assert not hub.listening
        proxy.heal()
        assert told(subscription)
        hub.publish("orders", TENANT, "after")
        assert subscription.get(LONG).json() == "after"


@pytest.mark.parametrize("stage", STAGES)
def test_start_and_close_keep_their_limits_while_a_proof_is_frozen(
    fresh_database_url: str,
    proxy: TcpProxy,
    reaches: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    stage: str,
) -> None:
    proxy.delay(0.1)
    url = proxy.through(fresh_database_url) + "?connect_timeout=30"
    with PostgresHub(url, heartbeat_timeout=30.0) as hub, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        start = pool.submit(hub.start, 3.0)
        reaches(stage)
        proxy.freeze()
        with pytest.raises(HubTimeoutError):
            start.result(LONG)
        started = time.monotonic()
        hub.close(timeout=1.0)
        closed = time.monotonic()
        proxy.cut()  # a thread that is left behind while it connects ends now
        print(f"start took {started - began:.1f} s, close {closed - started:.1f} s")
        assert started - began < 3.0 + SLACK
        assert closed - started < 1.0 + SLACK
    if "pg_notify" in stage:  # what has connected is cut, so that its thread ends at once
        assert "left behind" not in caplog.text
