"""History on a real gunicorn: a browser that comes back gets what it has missed, in a thread or detached."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from pgfanout import PostgresHub
from tests.support.gunicorn import GunicornServer
from tests.support.sse import EventSource, SentEvent
from tests.support.wait import eventually

from .conftest import Serve
from .test_detached import stats
from .test_gunicorn import TENANT

LONG = 30.0
OTHER = "22222222-2222-4222-8222-222222222222"

Open = Callable[..., EventSource]


@pytest.fixture
def hub(fresh_database_url: str) -> Iterator[PostgresHub]:
    """Publishes to the server's streams; the history is installed before anything else."""
    with PostgresHub(fresh_database_url, history=True) as hub:
        hub.install_history()
        yield hub


@pytest.fixture(params=["auto", "never"])
def server(request: pytest.FixtureRequest, serve: Serve, hub: PostgresHub) -> GunicornServer:
    """Its streams are detached, or keep their threads."""
    return serve(
        threads=8,
        env={
            "PGFANOUT_HISTORY": "true",
            "PGFANOUT_DETACH": request.param,
            "PGFANOUT_BUFFER_SIZE": "4",
            "PGFANOUT_HISTORY_MAX_REPLAY": "2000",
        },
    )


def open_stream(server: GunicornServer, last_event_id: str | None = None, query: str = "") -> EventSource:
    source = EventSource(f"{server.url}/events?tenant={TENANT}{query}", last_event_id=last_event_id, timeout=LONG)
    source.wait_for(lambda source: source.comments, LONG)
    return source


def publish(hub: PostgresHub, *numbers: int, tenant: str = TENANT) -> None:
    hub.publish_many([("orders", tenant, number) for number in numbers])


def take(source: EventSource, count: int) -> list[SentEvent]:
    return [source.next_event(LONG) for _ in range(count)]


def payloads(events: list[SentEvent]) -> list[object]:
    return [json.loads(event.data) if event.type == "message" else event.type for event in events]


def test_a_client_that_comes_back_gets_what_it_has_missed(server: GunicornServer, hub: PostgresHub) -> None:
    with open_stream(server) as source:
        publish(hub, 1, 2)
        assert payloads(take(source, 2)) == [1, 2]
        last = source.last_event_id
    publish(hub, 3, 4)
    publish(hub, 666, tenant=OTHER)
    with open_stream(server, last) as source:
        assert payloads(take(source, 2)) == [3, 4]
        publish(hub, 5)
        [event] = take(source, 1)
    assert payloads([event]) == [5]
    assert int(event.last_event_id) > int(last)


def test_a_client_that_has_seen_no_event_comes_back_with_a_number_as_well(
    server: GunicornServer, hub: PostgresHub
) -> None:
    with open_stream(server) as source:
        source.wait_for(lambda source: source.last_event_id, LONG)
        last = source.last_event_id
    publish(hub, 1)
    with open_stream(server, last) as source:
        assert payloads(take(source, 1)) == [1]


def test_a_client_that_comes_back_and_leaves_at_once_keeps_its_number(server: GunicornServer, hub: PostgresHub) -> None:
    cursor = hub.cursor()
    publish(hub, *range(1500))
    with open_stream(server, str(cursor)) as source:
        source.wait_for(lambda source: source.last_event_id, LONG)
        assert source.body.startswith(f": open\nid: {cursor}\n".encode())


def test_a_page_goes_on_from_where_it_was_rendered(server: GunicornServer, hub: PostgresHub) -> None:
    cursor = hub.cursor()
    publish(hub, 1, 2)
    with open_stream(server, query=f"&last_event_id={cursor}") as source:
        assert payloads(take(source, 2)) == [1, 2]


def test_an_id_that_is_no_number_of_the_log_is_a_refresh(server: GunicornServer, hub: PostgresHub) -> None:
    publish(hub, 1)
    for round, last in enumerate(("start", "1", "9000000000000000", "0", "-5", "5d1f0e", "9" * 23, "½")):
        with open_stream(server, last) as source:
            assert payloads(take(source, 1)) == ["refresh"], last
            publish(hub, 100 + round)
            source.events_until(lambda event, round=round: event.data == str(100 + round), LONG)  # type: ignore[misc]


def test_more_than_may_be_replayed_is_a_refresh(server: GunicornServer, hub: PostgresHub) -> None:
    cursor = hub.cursor()
    with open_stream(server) as live:
        publish(hub, *range(2001))
        # Else the rest would come as news. A stream that can't keep up with it has missed too much as well.
        live.events_until(lambda event: event.data == "2000" or event.type == "refresh", LONG)
    with open_stream(server, str(cursor)) as source:
        assert payloads(take(source, 1)) == ["refresh"]


def test_many_events_are_replayed_in_order_while_others_come(server: GunicornServer, hub: PostgresHub) -> None:
    cursor = hub.cursor()
    publish(hub, *range(1500))

    def write() -> None:
        for number in range(1500, 1800):
            publish(hub, number)

    writer = threading.Thread(target=write)
    writer.start()
    with open_stream(server, str(cursor)) as early, open_stream(server, str(cursor)) as late:
        for source in (early, late):
            assert payloads(take(source, 1800)) == list(range(1800))
    writer.join()


def test_nothing_is_missed_while_the_listener_is_away(
    server: GunicornServer, hub: PostgresHub, fresh_database_url: str
) -> None:
    with open_stream(server) as source, psycopg.connect(fresh_database_url, autocommit=True) as connection:
        for round in range(3):
            cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
            connection.execute(cut, ["pgfanout-listener"])
            publish(hub, *range(20 * round, 20 * round + 20))
            assert payloads(take(source, 20)) == list(range(20 * round, 20 * round + 20))
            eventually(lambda: stats(server.url)["listening"])
    seen = stats(server.url)
    assert (seen["gaps"], seen["refreshes"]) == (0, 0)
    assert seen["fills"] == seen["reconnects"] == 3


def test_a_burst_that_no_buffer_holds_arrives_whole(server: GunicornServer, hub: PostgresHub) -> None:
    with open_stream(server) as one, open_stream(server) as other:
        publish(hub, *range(1000))
        publish(hub, *range(1000, 1010))
        for source in (one, other):
            assert payloads(take(source, 1010)) == list(range(1010))
    assert stats(server.url)["refreshes"] == 0


def test_a_client_that_reads_nothing_for_a_while_gets_everything(server: GunicornServer, hub: PostgresHub) -> None:
    with open_stream(server) as source:
        for number in range(8):
            hub.publish("orders", TENANT, [number, "x" * 500_000])
        eventually(lambda: stats(server.url)["delivered"] >= 8)
        assert [json.loads(event.data)[0] for event in take(source, 8)] == list(range(8))


def test_a_deploy_loses_nothing(server: GunicornServer, hub: PostgresHub) -> None:
    source = open_stream(server)
    publish(hub, 1)
    assert payloads(take(source, 1)) == [1]
    (leaving,) = server.worker_pids()
    server.signal(signal.SIGHUP)
    assert source.next_event(LONG).type == "close"
    last = source.last_event_id
    source.close()
    publish(hub, 2)
    # gunicorn 21.2 resets connections that a leaving worker has accepted. A browser tries again, this client does not.
    eventually(lambda: leaving not in server.worker_pids())
    with open_stream(server, last) as source:
        assert payloads(take(source, 1)) == [2]
