"""The board's page in a real browser, on and off: what it was not there for it shows all the same."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import psycopg
import pytest
from playwright.sync_api import Page, Route, expect

from flask_example.database import CHANNEL
from flask_example.orders import STATUSES
from tests.support.data_directory import binaries, environment
from tests.support.gunicorn import GunicornServer
from tests.support.need import need
from tests.support.nginx import NginxServer
from tests.support.postgres import PostgresServer
from tests.support.sse import EventSource
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually

from .board import (
    CAFE,
    LONG,
    cards,
    column,
    complaints_of,
    insert,
    is_live,
    loads_of,
    shop,
    shows_the_table,
)

Change = Callable[[str], object]


@pytest.fixture(params=["psycopg", "psql"])
def change(request: pytest.FixtureRequest, postgres: PostgresServer, connection: psycopg.Connection) -> Change:
    """Executes a statement, as somebody does who knows the table and not the application."""
    if request.param == "psycopg":
        return lambda statement: connection.execute(statement.encode())
    psql = binaries(postgres.version) / "psql"
    need(psql.exists(), "there is no psql")
    url = postgres.url(connection.info.dbname)

    def execute(statement: str) -> None:
        subprocess.run(
            [str(psql), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command", statement, url],
            env=environment(),
            check=True,
            capture_output=True,
            timeout=30,
        )

    return execute


def test_a_page_is_drawn_before_its_streams_are_open_and_shows_what_changes_until_then(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    title = 'Drawn </script><img src=x onerror="alert(1)"> & <!-- \u2028 it\'s'
    with EventSource(f"{board.url}/events?tenant={CAFE}") as witness:
        insert(connection, title)
        witness.next_event(LONG)  # so it comes before the page's cursor
    loads, complaints = loads_of(page), complaints_of(page)
    held: list[Route] = []
    page.route("**/events?*", lambda route: held.append(route))
    page.goto(board.url)
    shows_the_table(page, connection)
    expect(column(page, CAFE, "new").get_by_text(title)).to_be_visible()
    expect(shop(page, CAFE)).to_have_attribute("data-state", "connecting")
    insert(connection, "Between rendering and connecting")
    connection.execute("UPDATE board_orders SET status = 'ready' WHERE title = %s", (title,))
    connection.execute("DELETE FROM board_orders WHERE title = 'Oat cappuccino'")
    while len(held) < 2:
        page.wait_for_timeout(20)
    expect(cards(page, CAFE).get_by_text("Between rendering and connecting")).to_have_count(0)
    for route in held:
        route.continue_()
    expect(shop(page, CAFE).locator(".events")).to_have_text("3 events")
    shows_the_table(page, connection)
    assert (loads, complaints) == ([], [])


def test_what_anyone_does_to_the_table_moves_the_board(
    board: GunicornServer, page: Page, connection: psycopg.Connection, change: Change
) -> None:
    page.goto(board.url)
    is_live(page)
    loads = loads_of(page)
    change(f"INSERT INTO board_orders (tenant, title) VALUES ('{CAFE}', 'By hand')")
    expect(column(page, CAFE, "new").get_by_text("By hand")).to_be_visible()
    for status in ("preparing", "ready", "delivered"):
        change(f"UPDATE board_orders SET status = '{status}' WHERE title = 'By hand'")
        expect(column(page, CAFE, status).locator(".title").first).to_have_text("By hand")
    expect(shop(page, CAFE).locator(".latency")).to_have_text(re.compile(r"^\d{1,3} ms$"))
    change("UPDATE board_orders SET title = 'Told apart' WHERE title = 'By hand'")
    expect(column(page, CAFE, "delivered").locator(".title").first).to_have_text("Told apart")
    change("DELETE FROM board_orders WHERE title = 'Told apart'")
    expect(cards(page, CAFE).get_by_text("Told apart")).to_have_count(0)
    expect(shop(page, CAFE).locator(".events")).to_have_text("6 events")
    shows_the_table(page, connection)
    assert loads == []


def test_a_page_that_was_offline_shows_all_that_it_has_missed(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    with TcpProxy(board.host, board.port) as network:
        page.goto(network.through(board.url))
        is_live(page)
        page.evaluate("window.stays = true")
        loads = loads_of(page)
        # Chromium's emulation refuses what is new; a stream that is open goes on in it, so that is cut as well.
        page.context.set_offline(True)
        network.cut()
        network.refuse()
        expect(shop(page, CAFE)).to_have_attribute("data-state", "reconnecting")
        for status in STATUSES:
            insert(connection, *(f"Missed {status} {number}" for number in range(5)), status=status)
        page.wait_for_timeout(5_000)
        expect(shop(page, CAFE).locator(".events")).to_have_text("0 events")
        network.heal()
        page.context.set_offline(False)
        expect(shop(page, CAFE).locator(".events")).to_have_text("20 events")
        expect(cards(page, CAFE).get_by_text("Missed")).to_have_count(20)
        is_live(page)
        shows_the_table(page, connection)
    expect(shop(page, CAFE).locator(".refreshes")).to_have_text("0 refreshes")
    assert page.evaluate("window.stays")
    assert loads == []


def test_a_page_that_the_browser_gave_up_for_goes_on_from_its_last_event(
    board: GunicornServer, page: Page, connection: psycopg.Connection, proxy: Callable[[str], NginxServer]
) -> None:
    with proxy(board.url) as front:
        page.goto(front.url)
        is_live(page)
        loads = loads_of(page)
        insert(connection, "Before")
        expect(cards(page, CAFE).get_by_text("Before")).to_be_visible()
        with page.expect_response(lambda answer: answer.status == 502 and "/events" in answer.url):
            board.stop()
        insert(connection, "During")
        board.start()
        expect(cards(page, CAFE).get_by_text("During")).to_be_visible(timeout=30_000)
        expect(shop(page, CAFE).locator(".events")).to_have_text("2 events")
        is_live(page)
        shows_the_table(page, connection)
    assert loads == []


def test_a_page_that_slept_goes_on_from_its_last_event(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    page.goto(board.url)
    is_live(page)
    loads = loads_of(page)
    insert(connection, "Before")
    expect(cards(page, CAFE).get_by_text("Before")).to_be_visible()
    fall_asleep(page)
    insert(connection, "During")
    wake_up(page)
    expect(cards(page, CAFE).get_by_text("During")).to_be_visible()
    expect(shop(page, CAFE).locator(".events")).to_have_text("2 events")
    shows_the_table(page, connection)
    assert loads == []


def test_a_page_that_missed_more_than_is_kept_refreshes(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    page.goto(board.url)
    is_live(page)
    loads = loads_of(page)
    for round in (1, 2):
        fall_asleep(page)
        eventually(lambda: page.request.get(f"{board.url}/status").json()["streams"] == 0)  # else a feed still has it
        insert(connection, f"Forgotten {round}")
        await_cursor(board, page, connection)  # a worker that had not read it yet would find it gone, and tell that
        forget_everything(connection)
        wake_up(page)
        expect(cards(page, CAFE).get_by_text(f"Forgotten {round}")).to_be_visible()
        expect(shop(page, CAFE).locator(".refreshes")).to_have_text("1 refresh" if round == 1 else "2 refreshes")
        is_live(page)
    insert(connection, "Live again")
    expect(cards(page, CAFE).get_by_text("Live again")).to_be_visible()
    shows_the_table(page, connection)
    assert [CAFE in load for load in loads].count(True) == 2


def test_an_event_past_the_log_is_a_refresh_of_its_tenant(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    page.goto(board.url)
    is_live(page)
    loads = loads_of(page)
    event = json.dumps({"channel": CHANNEL, "tenant_id": CAFE, "payload": {}})
    connection.execute("SELECT pg_notify('pgfanout_events', %s)", [event])
    expect(shop(page, CAFE).locator(".refreshes")).to_have_text("1 refresh")
    is_live(page)
    assert [CAFE in load for load in loads] == [True]


def test_a_page_without_a_cursor_loads_once_and_goes_on_from_its_last_event(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    def without_cursor(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub('data-cursor="[0-9]+"', 'data-cursor=""', answer.text()))

    page.route(f"{board.url}/", without_cursor)
    loads = loads_of(page)
    page.goto(board.url)
    is_live(page)
    assert len(loads) == 2
    board.stop()
    expect(shop(page, CAFE)).to_have_attribute("data-state", "reconnecting")
    insert(connection, "During the restart")
    board.start()
    expect(cards(page, CAFE).get_by_text("During the restart")).to_be_visible(timeout=30_000)
    is_live(page)
    shows_the_table(page, connection)
    assert len(loads) == 2


def fall_asleep(page: Page) -> None:
    """The browser freezes the page, which lets go of its streams."""
    page.evaluate("document.dispatchEvent(new Event('freeze'))")


def wake_up(page: Page) -> None:
    page.evaluate("document.dispatchEvent(new Event('resume'))")


def await_cursor(board: GunicornServer, page: Page, connection: psycopg.Connection) -> None:
    """Wait until the worker has read the log to its end."""
    [(last,)] = connection.execute("SELECT max(number) FROM pgfanout.event").fetchall()
    eventually(lambda: f'data-cursor="{last}"' in page.request.get(board.url).text())


def forget_everything(connection: psycopg.Connection) -> None:
    """What `prune` does to events that are too old."""
    with connection.transaction():
        connection.execute("UPDATE pgfanout.log SET pruned_to = (SELECT max(number) FROM pgfanout.event)")
        connection.execute("DELETE FROM pgfanout.event")
