"""The guide's page in real browsers, through outages of everything it stands on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from pgfanout import PostgresHub
from tests.support.browser import Tab, shows
from tests.support.nginx import NginxServer
from tests.support.postgres import PostgresServer
from tests.support.wait import eventually

from .apps.names import TENANT
from .conftest import Serve

Order = Callable[[int], None]

LONG = 30.0


@pytest.fixture
def order(fresh_database_url: str) -> Iterator[Order]:
    """Adds an order and announces it, in one transaction."""
    with (
        psycopg.connect(fresh_database_url, autocommit=True) as connection,
        PostgresHub(fresh_database_url) as hub,
    ):
        connection.execute("CREATE TABLE orders (id int)")

        def add(number: int) -> None:
            with connection.transaction():
                connection.execute("INSERT INTO orders VALUES (%s)", (number,))
                hub.publish("orders", TENANT, {"id": number}, type="order.updated", executor=connection)

        yield add


def lists(tab: Tab, *numbers: int) -> None:
    shows(tab, "#list", "".join(map(str, numbers)))


def test_the_page_loads_and_follows(serve: Serve, tab: Tab, order: Order) -> None:
    server = serve("tests.acceptance.apps.page:app")
    order(1)
    tab.open(server.url)
    lists(tab, 1)
    order(2)
    lists(tab, 1, 2)
    shows(tab, "#loads", "1")


def test_a_lost_listener_makes_the_page_load_again(
    serve: Serve, tab: Tab, order: Order, fresh_database_url: str
) -> None:
    server = serve("tests.acceptance.apps.page:app")
    tab.open(server.url)
    shows(tab, "#loads", "1")
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgfanout-listener'"
        )
    shows(tab, "#loads", "2")
    order(1)
    lists(tab, 1)


def test_a_page_behind_nginx_survives_the_502_of_a_restart(
    serve: Serve, tab: Tab, order: Order, proxy: Callable[[str], NginxServer]
) -> None:
    server = serve("tests.acceptance.apps.page:app")
    with proxy(server.url) as front:
        tab.open(front.url)
        shows(tab, "#loads", "1")
        server.stop()
        eventually(lambda: front.errors.count("GET /events") >= 4)  # for some seconds, since the pauses grow
        order(1)
        server.start()
        lists(tab, 1)
        shows(tab, "#loads", "2")
        order(2)
        lists(tab, 1, 2)


def test_the_page_is_right_soon_after_postgresql_was_restarted_below_a_pool(
    serve: Serve, tab: Tab, postgres_of_our_own: PostgresServer
) -> None:
    url = postgres_of_our_own.create_database("tabs")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE numbers (id bigserial, owner text, number int)")
    server = serve("tests.acceptance.apps.tabs:app", env={"DATABASE_URL": url})
    tab.open(f"{server.url}/login/ann")
    eventually(lambda: tab.run("window.seen?.loads") == 1, LONG)
    postgres_of_our_own.restart()
    began = time.monotonic()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO numbers (owner, number) VALUES ('ann', 1)")
    eventually(lambda: tab.run("seen.numbers") == [1], LONG)
    print(f"\nright {time.monotonic() - began:.1f} s after the restart of PostgreSQL")
    assert "Exception on /numbers" in server.log  # a load met a connection that was dead
    assert tab.run("seen.loads") == 2
