"""A session that LISTENs, with what others do to it: it is deaf, its role has defaults, its pulses are shared."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgfanout import HubConfigurationError, InvalidEventError, MemoryHub, PostgresHub
from pgfanout.backends.postgres import conninfo
from pgfanout.backends.postgres.listener import Listener, Timing
from pgfanout.backends.postgres.outage import Outage
from pgfanout.backends.postgres.session import Session
from pgfanout.backends.postgres.watchdog import Watchdog
from pgfanout.hub import core_of
from pgfanout.topic import Topic
from tests.support.deafening import Deafening
from tests.support.hubs import replace_heartbeat
from tests.support.postgres import MakeServer, PostgresServer, random_name
from tests.support.wait import eventually

# Private members: a session is made deaf at the place where it hears.

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0
SLACK = 2.0  # seconds that a noisy machine may add to a limit


class BeatingHub(PostgresHub):
    """A hub that counts its heartbeats."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.beats = 0
        replace_heartbeat(self, self.count)

    def count(self, beat: Callable[[], None]) -> None:
        beat()
        self.beats += 1


@pytest.fixture
def connection(fresh_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        yield connection


def was_dead(hub: PostgresHub) -> bool:
    return hub.stats().dead_connections > 0


def hears(hub: PostgresHub, payload: object = "anything") -> bool:
    """Whether what is published now arrives."""
    with hub.subscribe("orders", TENANT) as subscription:
        hub.publish("orders", TENANT, payload)
        return bool(subscription.get(LONG).json() == payload)


@contextmanager
def hubs(urls: list[str], **options: Any) -> Iterator[list[BeatingHub]]:
    with ExitStack() as stack:
        started = [stack.enter_context(BeatingHub(url, **options)) for url in urls]
        for hub in started:
            hub.start(LONG)
        yield started


WAYS = [
    pytest.param(lambda between: between.inject("UNLISTEN *"), id="UNLISTEN"),
    pytest.param(lambda between: between.inject("DISCARD ALL"), id="DISCARD ALL"),
    pytest.param(lambda between: between.inject("UNLISTEN pgfanout_events"), id="the events alone"),
    pytest.param(lambda between: between.inject("UNLISTEN pgfanout_pulse"), id="the pulses alone"),
    pytest.param(lambda between: between.drop_notifications(), id="notifications dropped"),
]


@pytest.mark.parametrize("make_deaf", WAYS)
def test_a_deaf_session_is_found_within_heartbeat_and_timeout_each_time(
    fresh_database_url: str, make_deaf: Callable[[Deafening], None]
) -> None:
    seconds, took = 0.4, []
    with ExitStack() as stack:
        betweens = [stack.enter_context(Deafening(fresh_database_url)) for _ in range(8)]
        urls = [between.url for between in betweens]
        deaf = stack.enter_context(hubs(urls, heartbeat=seconds, heartbeat_timeout=seconds))
        for between in betweens:
            make_deaf(between)
        began = time.monotonic()
        for hub in deaf:
            eventually(partial(was_dead, hub), LONG)
            took.append(time.monotonic() - began)
        assert "notifications no longer arrive" in deaf[0].stats().last_error
    print(f"\nfound after {min(took):.2f} to {max(took):.2f} s")
    assert max(took) < 2 * seconds + SLACK


def test_a_session_that_is_deaf_to_all_but_what_comes_with_answers_is_found_beside_hubs_that_pulse(
    fresh_database_url: str,
) -> None:
    seconds = 0.4
    with (
        Deafening(fresh_database_url) as between,
        hubs([fresh_database_url] * 6 + [between.url], heartbeat=seconds, heartbeat_timeout=seconds) as started,
    ):
        *others, deaf = started
        eventually(lambda: all(hub.beats >= 2 for hub in started))
        between.inject("UNLISTEN *")
        began = time.monotonic()
        eventually(lambda: deaf.stats().dead_connections == 1, LONG)
        assert time.monotonic() - began < 2 * seconds + SLACK
        eventually(lambda: deaf.listening)
        assert hears(deaf)
        assert [hub.stats().reconnects for hub in others] == [0] * 6


def test_idle_hubs_pulse_for_each_other(fresh_database_url: str, connection: psycopg.Connection) -> None:
    heard: list[str] = []
    with hubs([fresh_database_url] * 8, heartbeat=0.5) as started:
        connection.add_notify_handler(lambda notify: heard.append(notify.payload))
        connection.execute("LISTEN pgfanout_pulse")
        before = [hub.beats for hub in started]
        eventually(lambda: all(hub.beats >= seen + 8 for hub, seen in zip(started, before, strict=True)))
        connection.execute("SELECT 1")
        assert 2 <= len(heard) <= sum(hub.beats for hub in started) / 2, "each hub pulses for itself"
        assert [hub.stats().reconnects for hub in started] == [0] * 8


def test_a_hub_that_hears_events_does_not_pulse(fresh_database_url: str, connection: psycopg.Connection) -> None:
    heard: list[str] = []
    stop = threading.Event()
    with hubs([fresh_database_url], heartbeat=0.5) as (hub,), PostgresHub(fresh_database_url) as publisher:
        connection.add_notify_handler(lambda notify: heard.append(notify.payload))
        connection.execute("LISTEN pgfanout_pulse")

        def publish() -> None:
            while not stop.wait(0.02):
                publisher.publish("orders", TENANT, 1)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            enough = hub.beats + 8
            eventually(lambda: hub.beats >= enough)
        finally:
            stop.set()
            thread.join(LONG)
        connection.execute("SELECT 1")
        assert len(heard) < 4, "a machine that stops for a heartbeat may cause one"


def test_what_strangers_say_on_the_pulses_channel_is_no_event(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    with PostgresHub(fresh_database_url, heartbeat=0.1) as hub:
        hub.start(LONG)
        for payload in ("", "pulse", '{"channel": "orders"}', "x" * 7000):
            connection.execute("SELECT pg_notify('pgfanout_pulse', %s)", (payload,))
        assert hears(hub)
        assert (hub.stats().undecodable, hub.stats().received, hub.stats().reconnects) == (0, 1, 0)


def test_the_pulses_channel_is_not_to_be_had_for_events() -> None:
    with pytest.raises(InvalidEventError, match="pgfanout_pulse"):
        PostgresHub("dbname=any", postgres_channel="pgfanout_pulse")


@contextmanager
def role_with(postgres: PostgresServer, url: str, settings: dict[str, str]) -> Iterator[str]:
    """The URL with a role that has defaults of its own."""
    role = random_name("role")
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(role)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(name))
        for setting, value in settings.items():
            connection.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
            )
        yield postgres.url(connection.info.dbname, user=role)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


DEFAULTS = {
    "idle_session_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "statement_timeout": "2s",
    "lock_timeout": "1s",
    "transaction_timeout": "2s",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "search_path": "odd, pg_catalog",
    "bytea_output": "escape",
    "DateStyle": "German",
}


@pytest.mark.parametrize("history", [False, True], ids=["plain", "history"])
def test_a_hub_works_for_a_role_whose_defaults_are_meant_for_others(
    postgres: PostgresServer, fresh_database_url: str, history: bool
) -> None:
    settings = {**DEFAULTS}
    if postgres.version < 17:
        del settings["transaction_timeout"]
    with (
        role_with(postgres, fresh_database_url, settings) as url,
        BeatingHub(url, history=history, heartbeat=1.0) as hub,
    ):
        if history:
            hub.install_history()
        cursor = hub.cursor()
        subscription = hub.subscribe("orders", TENANT)
        eventually(lambda: hub.beats >= 2)  # for longer than an idle session may live
        for number in range(3):
            hub.publish("orders", TENANT, ["\\ and 'quotes'", number])
            assert subscription.get(LONG).json() == ["\\ and 'quotes'", number]
        assert hub.stats().reconnects == 0
        if history:
            assert hub.subscribe("orders", TENANT, after=cursor).get(LONG).json()[1] == 0


@pytest.mark.parametrize("whose", ["ROLE", "DATABASE"])
def test_a_role_or_a_database_that_is_read_only_by_default_is_no_standby(
    postgres: PostgresServer, fresh_database_url: str, connection: psycopg.Connection, whose: str
) -> None:
    with role_with(postgres, fresh_database_url, {}) as url:
        name = psycopg.conninfo.conninfo_to_dict(url)["user" if whose == "ROLE" else "dbname"]
        change = sql.SQL("ALTER {} {} SET default_transaction_read_only = on")
        connection.execute(change.format(sql.SQL(whose), sql.Identifier(str(name))))
        with PostgresHub(url) as hub:
            assert hears(hub)


def test_a_server_that_is_read_only_is_named_and_not_called_a_standby(make_server: MakeServer) -> None:
    with make_server(settings={"default_transaction_read_only": "on"}) as server, PostgresHub(server.url()) as hub:
        with pytest.raises(HubConfigurationError) as caught:
            hub.start(LONG)
        assert "the server is read-only (default_transaction_read_only)" in str(caught.value)
        assert "is a standby" not in str(caught.value)


def test_threads_do_not_carry_the_context_of_the_request_that_started_them(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracers and error reporters hand the context of `Thread.start` down to the thread, as is done here."""
    visitor: ContextVar[str] = ContextVar("visitor", default="nobody")
    start = threading.Thread.start
    seen: dict[str, str] = {}

    def start_in_context(thread: threading.Thread) -> None:
        run, context = thread.run, copy_context()
        thread.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_in_context)
    with PostgresHub(fresh_database_url, history=True, heartbeat=0.1) as hub:
        replace_heartbeat(hub, lambda beat: seen.update(listener=visitor.get()))
        hub.install_history()
        visitor.set("the first visitor")
        hub.start(LONG)
        log = core_of(hub).log
        assert log is not None
        topics = (Topic.of("orders", TENANT),)
        log.ask(topics, 0, lambda page: seen.update(replayer=visitor.get()))
        eventually(lambda: len(seen) == 2)
    assert seen == {"listener": "nobody", "replayer": "nobody"}


def test_a_sink_that_asks_for_it_is_called_though_nothing_arrives(fresh_database_url: str) -> None:
    calls: list[int] = []
    sink = core_of(MemoryHub()).sink
    sink.pause = lambda: 0.01  # type: ignore[method-assign]
    sink.receive = lambda texts: calls.append(len(texts))  # type: ignore[method-assign]
    timing = Timing(heartbeat=60.0, heartbeat_timeout=60.0, max_reconnect_delay=1.0)
    listener = Listener(conninfo.parse(fresh_database_url), "pgfanout_events", sink, timing, Outage())
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        eventually(lambda: len(calls) >= 10)
    finally:
        listener.stop()
        thread.join(LONG)
    assert not thread.is_alive()
    assert not any(calls)


# A stranger's flood.

KEPT = 4 * 1024 * 1024
FLOOD = 2_000  # notifications of 7,900 bytes, nearly four times what is kept


class CountingWatchdog(Watchdog):
    """Notes when the time for an answer begins anew."""

    extensions = 0

    def extend(self) -> None:
        super().extend()
        self.extensions += 1


class NotingSession(Session):
    """Notes how many notifications libpq had at once, each time it was looked at."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.batches: list[int] = []

    def _hear(self) -> None:
        before = self._arrivals
        super()._hear()
        self.batches.append(self._arrivals - before)


@contextmanager
def listening_session(url: str) -> Iterator[tuple[NotingSession, CountingWatchdog]]:
    parameters, watchdog = conninfo.parse(url), CountingWatchdog()
    with conninfo.connect(parameters, "test") as listener, watchdog.watch(listener.fileno()):
        session = NotingSession(listener, "pgfanout_events", watchdog, LONG)
        session.listen()
        yield session, watchdog


def flood(connection: psycopg.Connection, count: int = FLOOD, size: int = 7900) -> None:
    """One transaction with many notifications; each begins with its number."""
    connection.execute(
        "SELECT count(pg_notify('pgfanout_events', rpad(n || '.', %s, 'x'))) FROM generate_series(1, %s) AS n",
        (size, count),
    )


def everything(session: Session) -> list[str]:
    """What can be taken until the text "end" comes."""
    taken: list[str] = []
    deadline = time.monotonic() + LONG
    while "end" not in taken and time.monotonic() < deadline:
        taken += session.take(0.1)
    return taken


def test_what_comes_faster_than_it_is_taken_is_dropped_beyond_a_bound_in_bytes_and_leaves_one_mark_in_its_place(
    fresh_database_url: str, connection: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with listening_session(fresh_database_url) as (session, _):
        flood(connection)
        assert session.query("SELECT 1", ()) == [(1,)]
        first = session.take(0.0)
        connection.execute("SELECT pg_notify('pgfanout_events', 'end')")
        session.query("SELECT 1", ())
        taken = first + everything(session)
    marks = [at for at, text in enumerate(taken) if not text]
    assert (len(marks), taken[marks[0] + 1 :]) == (1, ["end"])
    assert [int(text.split(".")[0]) for text in taken[: marks[0]]] == list(range(1, marks[0] + 1))
    assert KEPT * 0.98 < sum(map(len, taken)) <= KEPT
    (line,) = [record for record in caplog.records if "were dropped" in record.message]
    assert line.message.startswith(f"{FLOOD - marks[0]} notifications were dropped")


def test_small_notifications_and_empty_ones_are_bounded_as_well(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    with listening_session(fresh_database_url) as (session, _):
        flood(connection, 100_000, 7)
        session.query("SELECT 1", ())
        connection.execute("SELECT pg_notify('pgfanout_events', 'end')")
        taken = everything(session)
    assert taken[-2:] == ["", "end"]
    assert 10_000 < len(taken) <= KEPT / 64


def test_there_is_room_again_for_what_was_taken(fresh_database_url: str, connection: psycopg.Connection) -> None:
    with listening_session(fresh_database_url) as (session, _):
        for _ in range(3):
            flood(connection, 400)
            session.query("SELECT 1", ())
            connection.execute("SELECT pg_notify('pgfanout_events', 'end')")
            assert len(everything(session)) == 401


def test_libpq_keeps_no_flood_until_the_answer_is_there_and_the_flood_extends_the_time_for_it(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    with listening_session(fresh_database_url) as (session, watchdog):
        session.query("SELECT 1", ())
        assert watchdog.extensions == 0
        session.batches.clear()
        flood(connection)
        session.query("SELECT 1", ())
        assert watchdog.extensions > 5
        assert max(session.batches) < FLOOD / 5
        assert sum(session.batches) > FLOOD * 0.8, "the rest came with the end of the answer"


def test_a_flood_costs_a_hub_with_a_history_no_event_no_refresh_and_no_session(
    fresh_database_url: str, connection: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with PostgresHub(fresh_database_url, history=True) as hub:
        hub.install_history()
        hub.start(LONG)
        subscription = hub.subscribe("orders", TENANT)
        with connection.transaction():
            flood(connection)
            hub.publish("orders", TENANT, 1, executor=connection)
        hub.publish("orders", TENANT, 2)
        assert [subscription.get(LONG).json() for _ in range(2)] == [1, 2]
        eventually(lambda: "were dropped" in caplog.text)
        assert (hub.stats().reconnects, hub.stats().gaps) == (0, 0)


class FloodedHub(PostgresHub):
    """Its listener is busy while the flood comes, and for longer than a heartbeat: it asks its server next."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.flood: Callable[[], object] | None = None
        replace_heartbeat(self, self.beat)

    def beat(self, beat: Callable[[], None]) -> None:
        beat()
        if self.flood is not None:
            self.flood()
            self.flood = None
            time.sleep(0.1)


def test_a_flood_is_one_gap_for_everyone_without_a_history_and_costs_no_session(
    fresh_database_url: str, connection: psycopg.Connection
) -> None:
    head = f'{{"channel":"nobody\'s","tenant_id":"{TENANT}","payload":"'
    statement = (
        "SELECT count(pg_notify('pgfanout_events', %s || rpad(n::text, 7000) || '\"}')) FROM generate_series(1, %s) n"
    )
    with FloodedHub(fresh_database_url, heartbeat=0.1) as hub:
        hub.start(LONG)
        subscription = hub.subscribe("orders", TENANT)
        hub.flood = lambda: connection.execute(statement, (head, FLOOD))
        assert subscription.get(LONG).type == "refresh"
        hub.publish("orders", TENANT, 3)
        assert subscription.get(LONG).json() == 3
        stats = hub.stats()
        assert (stats.gaps, stats.undecodable, stats.reconnects) == (1, 1, 0)
        assert stats.received < FLOOD / 2
