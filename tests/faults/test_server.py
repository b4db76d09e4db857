"""A hub whose server fails over, is full, starts up, refuses, is slow: it says why, tells the gap, and heals."""

from __future__ import annotations

import logging
import queue
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from pgfanout import REFRESH_EVENT, Event, HubConfigurationError, HubTimeoutError, PostgresHub, Subscription
from pgfanout.delivery.dispatcher import Dispatcher
from pgfanout.topic import Topic
from tests.support.data_directory import PASSWORD
from tests.support.postgres import SCRAM, MakeServer, PostgresServer, StopMode
from tests.support.processes import session
from tests.support.replication import Standby
from tests.support.wait import eventually

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 40.0
STARTING_UP = "the database system is starting up"


def hears(hub: PostgresHub, subscription: Subscription, payload: object) -> None:
    """What is published now is what the subscription gets next."""
    hub.publish("orders", TENANT, payload)
    assert subscription.get(LONG).json() == payload


def end_listeners(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgfanout-listener'"
    )


def saw(hub: PostgresHub, words: str) -> Callable[[], bool]:
    """Whether the hub's last failure says so."""
    return lambda: words in hub.stats().last_error


class TestFailOver:
    """A primary with a real streaming standby, both in the hub's connection string."""

    def url(self, *servers: PostgresServer) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        return f"postgresql://postgres:{PASSWORD}@{hosts}/postgres"

    def test_the_hub_follows_to_the_promoted_standby(self, pair: tuple[PostgresServer, Standby]) -> None:
        primary, standby = pair
        with PostgresHub(self.url(primary, standby)) as hub:
            subscription = hub.subscribe("orders", TENANT)
            hears(hub, subscription, "on the old primary")
            standby.wait_caught_up()
            primary.kill()
            eventually(saw(hub, "standby"))
            begin = time.monotonic()
            standby.promote()
            promoted = time.monotonic() - begin
            assert subscription.get(LONG) is REFRESH_EVENT
            print(f"\nfail-over: promoted after {promoted:.2f} s, live again after {time.monotonic() - begin:.2f} s")
            hears(hub, subscription, "on the new primary")

    def test_a_start_between_the_primarys_end_and_the_promotion_waits_for_it(
        self, pair: tuple[PostgresServer, Standby]
    ) -> None:
        primary, standby = pair
        standby.wait_caught_up()
        primary.kill()
        with PostgresHub(self.url(primary, standby)) as hub:
            with pytest.raises(HubTimeoutError, match="read-only standby"):
                hub.start(timeout=0.5)
            starting = threading.Thread(target=hub.start, args=(LONG,))
            starting.start()
            eventually(saw(hub, "standby"))
            standby.promote()
            starting.join(LONG)
            assert hub.listening

    def test_a_standby_alone_heals_in_the_background_when_it_is_promoted(
        self, pair: tuple[PostgresServer, Standby]
    ) -> None:
        primary, standby = pair
        standby.wait_caught_up()
        primary.kill()
        with PostgresHub(standby.url()) as hub:
            hub.start_in_background()
            eventually(saw(hub, "standby"))
            standby.promote()
            eventually(lambda: hub.listening, timeout=LONG)

    @pytest.mark.parametrize("hidden", ["PGHOST", "PGSERVICE"])
    def test_a_standby_is_waited_for_where_another_host_may_be_hidden(
        self, pair: tuple[PostgresServer, Standby], hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        primary, standby = pair
        hosts, ports = "127.0.0.1,127.0.0.1", f"{primary.port},{standby.port}"
        standby.wait_caught_up()
        primary.kill()
        if hidden == "PGHOST":
            monkeypatch.setenv("PGHOST", hosts)
            monkeypatch.setenv("PGPORT", ports)
        else:
            (tmp_path / "services").write_text(f"[shop]\nhost={hosts}\nport={ports}\n", encoding="utf-8")
            monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
            monkeypatch.setenv("PGSERVICE", "shop")
        with PostgresHub("user=postgres dbname=postgres") as hub:
            with pytest.raises(HubTimeoutError, match="standby"):
                hub.start(timeout=1.0)

    def test_a_standby_is_refused_alone_and_skipped_among_several(self, pair: tuple[PostgresServer, Standby]) -> None:
        primary, standby = pair
        with PostgresHub(standby.url()) as alone, pytest.raises(HubConfigurationError, match="standby.*promote"):
            alone.start(timeout=LONG)
        with PostgresHub(self.url(standby, primary)) as hub:
            hears(hub, hub.subscribe("orders", TENANT), "on the primary")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_restarted_is_found_again(make_server: MakeServer, mode: StopMode) -> None:
    server = make_server()
    server.start()
    with PostgresHub(server.url()) as hub:
        subscription = hub.subscribe("orders", TENANT)
        hears(hub, subscription, "before")
        server.restart(mode)
        begin = time.monotonic()
        assert subscription.get(LONG) is REFRESH_EVENT
        print(f"\n{mode} restart: live again {time.monotonic() - begin:.2f} s after the server accepted connections")
        hears(hub, subscription, "after")


class TestFullServer:
    """Every connection slot is somebody else's (53300)."""

    @pytest.fixture
    def server(self, make_server: MakeServer) -> PostgresServer:
        server = make_server(settings={"max_connections": 8, "superuser_reserved_connections": 0})
        server.start()
        return server

    @pytest.fixture
    def crowd(self) -> Iterator[ExitStack]:
        with ExitStack() as stack:
            yield stack

    def fill(self, server: PostgresServer, crowd: ExitStack) -> None:
        try:
            while True:
                crowd.enter_context(server.connect())
        except psycopg.OperationalError as error:
            assert "too many clients" in str(error)

    def test_a_running_hub_heals_when_slots_are_free(self, server: PostgresServer, crowd: ExitStack) -> None:
        with server.connect() as connection, PostgresHub(server.url(), connection) as hub:
            subscription = hub.subscribe("orders", TENANT)

            def crowded_out() -> bool:
                # The hub may be quicker to take the slot of its old session; then once more.
                end_listeners(connection)
                self.fill(server, crowd)
                return "too many clients" in hub.stats().last_error

            eventually(crowded_out, timeout=LONG, interval=0.1)
            assert not hub.listening
            with suppress(queue.Empty):
                subscription.get_all(timeout=0)
            crowd.close()
            begin = time.monotonic()
            assert subscription.get(LONG) is REFRESH_EVENT
            print(f"\nfull server: live again {time.monotonic() - begin:.2f} s after slots were free")
            hears(hub, subscription, "after")

    def test_start_waits_for_its_time_out_and_names_the_reason(self, server: PostgresServer, crowd: ExitStack) -> None:
        self.fill(server, crowd)
        with PostgresHub(server.url()) as hub:
            begin = time.monotonic()
            with pytest.raises(HubTimeoutError, match="too many clients"):
                hub.start(timeout=1.0)
            assert time.monotonic() - begin >= 1.0
            crowd.close()
            hub.start(timeout=LONG)


class TestStartingUp:
    """A server that replays its log, and says so (57P03), for as long as the test wants."""

    @pytest.fixture
    def server(self, make_server: MakeServer) -> PostgresServer:
        server = make_server()
        server.start()
        return server

    def hold(self, server: PostgresServer) -> Callable[[], None]:
        """Stop it and have it wait for its archive at the next start; what this returns lets it go on."""
        gate = session.directory("gate") / "open"
        wait = f"while [ ! -e {shlex.quote(str(gate))} ]; do sleep 0.05; done; false"
        server.settings.update({"restore_command": wait, "hot_standby": "off"})
        server.stop("immediate")
        (server.data_directory / "recovery.signal").touch()
        server.launch()
        return gate.touch

    def test_start_waits_for_it(self, server: PostgresServer) -> None:
        let_go = self.hold(server)
        with PostgresHub(server.url()) as hub:
            starting = threading.Thread(target=hub.start, args=(LONG,))
            starting.start()
            eventually(saw(hub, STARTING_UP))
            assert starting.is_alive()
            let_go()
            starting.join(LONG)
            assert hub.listening

    def test_a_start_whose_time_is_over_names_the_reason(self, server: PostgresServer) -> None:
        self.hold(server)
        with PostgresHub(server.url()) as hub, pytest.raises(HubTimeoutError, match=STARTING_UP):
            hub.start(timeout=2.0)

    def test_a_running_hub_heals(self, server: PostgresServer) -> None:
        with PostgresHub(server.url()) as hub:
            subscription = hub.subscribe("orders", TENANT)
            hears(hub, subscription, "before")
            let_go = self.hold(server)
            eventually(saw(hub, STARTING_UP))
            let_go()
            eventually(server.connect).close()
            begin = time.monotonic()
            assert subscription.get(LONG) is REFRESH_EVENT
            print(f"\nstarting up: live again {time.monotonic() - begin:.2f} s after the server accepted connections")
            hears(hub, subscription, "after")


class TestPassword:
    """The role's password is changed under a running hub."""

    @pytest.fixture
    def server(self, make_server: MakeServer) -> PostgresServer:
        server = make_server(hba=SCRAM)
        server.start()
        with server.connect() as connection:
            connection.execute("CREATE ROLE app LOGIN PASSWORD 'open-sesame'")
        return server

    def test_the_session_goes_on_and_a_lost_one_heals_when_it_is_changed_back(
        self, server: PostgresServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "pgfanout")
        with (
            server.connect() as connection,
            PostgresHub(server.url(user="app", password="open-sesame"), connection) as hub,
        ):
            subscription = hub.subscribe("orders", TENANT)
            connection.execute("ALTER ROLE app PASSWORD 'another'")
            hears(hub, subscription, "the session goes on")
            end_listeners(connection)
            # Four refusals: `start` would give up at the first.
            eventually(lambda: caplog.text.count("password authentication failed") >= 4)
            connection.execute("ALTER ROLE app PASSWORD 'open-sesame'")
            assert subscription.get(LONG) is REFRESH_EVENT
            hears(hub, subscription, "after")
        assert "open-sesame" not in caplog.text

    def test_a_wrong_one_is_refused_at_the_first_attempt(self, server: PostgresServer) -> None:
        with PostgresHub(server.url(user="app", password="wrong")) as hub:
            with pytest.raises(HubConfigurationError, match="password authentication failed"):
                hub.start(timeout=LONG)
        assert server.log.count('password authentication failed for user "app"') == 1


def roomy_hub(url: str, connection: psycopg.Connection[tuple[object, ...]], heartbeat: float) -> PostgresHub:
    """A hub whose subscriptions have room for all that fits into the server's queue."""
    return PostgresHub(url, connection, buffer_size=1000, buffer_bytes=10_000_000, heartbeat=heartbeat)


class TestNotificationQueue:
    """Another session LISTENs and stays in a transaction, so the server has to keep every notification."""

    @pytest.fixture
    def connection(self, make_server: MakeServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        server = make_server(settings={"max_notify_queue_pages": 64})
        if server.version < 17:
            pytest.skip("max_notify_queue_pages came with PostgreSQL 17: an older queue takes 8 GB to fill")
        server.start()
        with server.connect() as connection:
            yield connection

    def usage(self, connection: psycopg.Connection[tuple[object, ...]]) -> object:
        ((usage,),) = connection.execute("SELECT pg_notification_queue_usage()")
        return usage

    def publish_until_full(self, hub: PostgresHub) -> int:
        for number in range(1000):
            try:
                hub.publish("orders", TENANT, [number, "x" * 7000])
            except psycopg.OperationalError as error:
                assert "too many notifications" in str(error)
                return number
        raise AssertionError("a thousand events of 7 KB did not fill 64 pages")

    def test_a_full_one_is_an_error_of_publish_and_nothing_is_lost(
        self, connection: psycopg.Connection[tuple[object, ...]]
    ) -> None:
        url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{connection.info.port}/postgres"
        with psycopg.connect(url) as foreign, roomy_hub(url, connection, heartbeat=0.5) as hub:
            subscription = hub.subscribe("orders", TENANT)
            foreign.execute("LISTEN something_else")
            foreign.commit()
            foreign.execute("SELECT 1")
            sent = self.publish_until_full(hub)
            # A heartbeat is a notification too, and finds no room.
            eventually(lambda: hub.stats().queue_usage == 1.0)
            assert (hub.listening, hub.stats().reconnects) == (True, 0)
            # Ours has read everything: after the other has left, nobody holds the queue.
            assert [subscription.get(LONG).json()[0] for _ in range(sent)] == list(range(sent))
            foreign.rollback()
            # The entries of the publish that failed are passed over at the next heartbeat.
            eventually(lambda: self.usage(connection) == 0)
            hears(hub, subscription, "after")
            assert hub.stats().gaps == 0
            print(f"\nthe queue of 512 KiB was full after {sent} events of 7 KB")

    def test_a_hub_begins_to_listen_on_a_queue_that_was_full_when_its_holder_left(
        self, connection: psycopg.Connection[tuple[object, ...]]
    ) -> None:
        url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{connection.info.port}/postgres"
        with psycopg.connect(url) as foreign:
            foreign.execute("LISTEN something_else")
            foreign.commit()
            foreign.execute("SELECT 1")
            self.publish_until_full(PostgresHub(url, connection))
        with PostgresHub(url) as hub:
            hub.start(LONG)
            hears(hub, hub.subscribe("orders", TENANT), "after")


def test_heartbeats_wait_for_a_slow_dispatch(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the events of a large transaction are handed on, the server's answer waits behind them."""
    limit, count = 1.0, 300
    offer = Dispatcher.offer

    def offer_slowly(dispatcher: Dispatcher, topic: Topic, event: Event) -> None:
        time.sleep(3 * limit / count)
        offer(dispatcher, topic, event)

    monkeypatch.setattr(Dispatcher, "offer", offer_slowly)
    with PostgresHub(fresh_database_url, heartbeat=limit / 4, heartbeat_timeout=limit) as hub:
        hub.subscribe("orders", TENANT)
        with psycopg.connect(fresh_database_url) as connection:
            hub.publish_many([("orders", TENANT, number) for number in range(count)], executor=connection)
        with suppress(AssertionError):  # what was received tells more than a time-out
            eventually(lambda: hub.stats().received == count, timeout=LONG)
        # A connection that was cut is noticed by who reads from it next.
        hub.publish("orders", TENANT, "after")
        with suppress(AssertionError):
            eventually(lambda: hub.stats().received == count + 1)
        assert (hub.stats().received, hub.stats().reconnects, hub.stats().last_error) == (count + 1, 0, "")
