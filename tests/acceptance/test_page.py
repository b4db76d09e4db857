"""The README's page in a real browser, through outages of everything it stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from pgfanout import PostgresHub
from tests.support.nginx import NginxServer

from .apps.names import TENANT
from .conftest import Serve

pytestmark = pytest.mark.browser

Order = Callable[[int], None]


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


def shows(page: Page, *numbers: int) -> None:
    expect(page.locator("#list")).to_have_text("".join(map(str, numbers)), timeout=20_000)


def test_the_page_loads_and_follows(serve: Serve, page: Page, order: Order) -> None:
    server = serve("tests.acceptance.apps.page:app")
    order(1)
    page.goto(server.url)
    shows(page, 1)
    order(2)
    shows(page, 1, 2)
    expect(page.locator("#loads")).to_have_text("1")


def test_a_lost_listener_makes_the_page_load_again(
    serve: Serve, page: Page, order: Order, fresh_database_url: str
) -> None:
    server = serve("tests.acceptance.apps.page:app")
    page.goto(server.url)
    expect(page.locator("#loads")).to_have_text("1")
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgfanout-listener'"
        )
    expect(page.locator("#loads")).to_have_text("2", timeout=20_000)
    order(1)
    shows(page, 1)


def test_a_page_behind_nginx_survives_the_502_of_a_restart(
    serve: Serve, page: Page, order: Order, proxy: Callable[[str], NginxServer]
) -> None:
    server = serve("tests.acceptance.apps.page:app")
    with proxy(server.url) as front:
        page.goto(front.url)
        expect(page.locator("#loads")).to_have_text("1")
        with page.expect_response(lambda answer: answer.status == 502):
            server.stop()
        order(1)
        server.start()
        shows(page, 1)
        order(2)
        shows(page, 1, 2)
