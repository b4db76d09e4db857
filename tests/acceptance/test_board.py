"""The example's board as users get it: gunicorn with its configuration, curl's view and a browser's."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import statistics
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import Tab, shows
from tests.support.gunicorn import GunicornServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .board import CAFE, LONG, WORKSHOP, cards, insert, is_live, loads_of, post, shop, shows_the_table
from .conftest import Serve

LISTENERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'pgfanout-listener' AND datname = current_database()
"""


def test_an_order_reaches_its_tenants_stream_and_no_other(board: GunicornServer) -> None:
    with (
        EventSource(f"{board.url}/events?tenant={CAFE}") as cafe,
        EventSource(f"{board.url}/events?tenant={WORKSHOP}") as workshop,
    ):
        assert post(board, "/orders", {"tenant": CAFE, "title": "Flat white"})[0] == 201
        assert post(board, "/orders", {"tenant": WORKSHOP, "title": "Brake pads"})[0] == 201
        here, there = cafe.next_event(LONG), workshop.next_event(LONG)
    assert [here.type, json.loads(here.data)["row"]["title"]] == ["insert", "Flat white"]
    assert [there.type, json.loads(there.data)["row"]["title"]] == ["insert", "Brake pads"]


def test_a_post_becomes_a_frame_within_milliseconds(board: GunicornServer) -> None:
    parts = urlsplit(board.url)
    times = []
    with (
        EventSource(f"{board.url}/events?tenant={CAFE}") as source,
        contextlib.closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=LONG)) as connection,
    ):
        _, order = post(board, "/orders", {"tenant": CAFE, "title": "Flat white"})
        assert source.next_event(LONG).type == "insert"
        for number in range(200):
            status = ("preparing", "new")[number % 2]
            begin = time.perf_counter()
            connection.request(
                "POST",
                f"/orders/{order['id']}",
                json.dumps({"status": status}),
                {"Content-Type": "application/json"},
            )
            connection.getresponse().read()
            assert json.loads(source.next_event(LONG).data)["row"]["status"] == status
            times.append(time.perf_counter() - begin)
    median, slowest = statistics.median(times) * 1000, max(times) * 1000
    print(f"\nPOST to frame, 200 times: median {median:.2f} ms, slowest {slowest:.2f} ms")


def test_forty_pages_of_one_worker_share_one_listening_session(board: GunicornServer, fresh_database_url: str) -> None:
    sources = [EventSource(f"{board.url}/events?tenant={CAFE}") for _ in range(40)]
    post(board, "/orders", {"tenant": CAFE, "title": "Flat white"})
    for source in sources:
        assert source.next_event(LONG).type == "insert"
    with psycopg.connect(fresh_database_url) as connection:
        assert connection.execute(LISTENERS).fetchone() == (1,)
    for source in sources:
        source.close()


def test_workers_that_start_at_once_prepare_the_database_before_they_listen(
    serve_board: Serve, fresh_database_url: str
) -> None:
    server = serve_board(workers=4)
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        eventually(lambda: connection.execute(LISTENERS).fetchone() == (4,))
        assert connection.execute("SELECT count(*) FROM pgfanout.event").fetchone() == (16,)
    assert "can't listen" not in server.log


def test_the_status_line_tells_of_streams_and_threads(board: GunicornServer, page: Page) -> None:
    sources = [EventSource(f"{board.url}/events?tenant={CAFE}") for _ in range(40)]
    page.goto(board.url)
    expect(page.locator("#status")).to_have_text("42 streams open, 1 thread of 8 busy")
    for source in sources:
        source.close()
    expect(page.locator("#status")).to_have_text("2 streams open, 1 thread of 8 busy")


def test_the_windows_of_one_browser_have_one_stream_for_each_shop(
    board: GunicornServer, page: Page, connection: psycopg.Connection
) -> None:
    pages = [page, *(page.context.new_page() for _ in range(4))]  # more than six streams, if each had its own
    for each in pages:
        each.goto(board.url)
        is_live(each)
    expect(page.locator("#status")).to_have_text("2 streams open, 1 thread of 8 busy")
    insert(connection, "Affogato")
    for each in pages:
        expect(cards(each, CAFE).get_by_text("Affogato")).to_be_visible()
        expect(shop(each, CAFE).locator(".events")).to_have_text("1 event")


def test_ctrl_c_ends_every_page_with_close(board: GunicornServer) -> None:
    sources = [EventSource(f"{board.url}/events?tenant={CAFE}") for _ in range(20)]
    begin = time.monotonic()
    board.signal(signal.SIGINT)
    assert board.wait(LONG) == 0
    print(f"\nCtrl-C with 20 pages: everything had ended after {time.monotonic() - begin:.2f} s")
    for source in sources:
        assert source.events_until(lambda event: event.type == "close", LONG)
        assert source.wait_end(LONG)
        source.close()


def test_the_board_keeps_up_in_each_browser(board: GunicornServer, tab: Tab, connection: psycopg.Connection) -> None:
    shop = f"[data-tenant='{CAFE}']"
    state = f"document.querySelector({shop!r}).dataset.state"
    cards = f"document.querySelector({shop!r}).querySelector('.columns').textContent"
    tab.open(board.url)
    eventually(lambda: tab.run(state) == "live", LONG)
    post(board, "/orders", {"tenant": CAFE, "title": "Affogato <b>2</b>"})
    eventually(lambda: "Affogato <b>2</b>" in tab.run(cards), LONG)
    board.stop()
    eventually(lambda: tab.run(state) == "reconnecting", LONG)
    insert(connection, "During the restart")
    board.start()
    eventually(lambda: "During the restart" in tab.run(cards), 2 * LONG)
    shows(tab, f"{shop} .events", "2 events")
    shows(tab, f"{shop} .refreshes", "0 refreshes")


WIDE_CARDS = """
    [...document.querySelectorAll(".card button")].filter((button) =>
        button.getBoundingClientRect().right > button.closest(".card").getBoundingClientRect().right).length
"""


@pytest.mark.parametrize("width", [1440, 1280, 1100, 700, 390])
def test_no_button_runs_over_its_card(board: GunicornServer, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(board.url)
    expect(page.locator(".card").first).to_be_visible()
    assert page.evaluate(WIDE_CARDS) == 0
    page.evaluate("document.querySelectorAll('.number').forEach((number) => { number.textContent = '#123456'; })")
    assert page.evaluate(WIDE_CARDS) == 0


class TestWindows:
    """Two windows of the board, neither of which ever loads its orders again."""

    @pytest.fixture
    def windows(self, board: GunicornServer, browser: Browser) -> Iterator[tuple[Page, Page]]:
        contexts = [browser.new_context() for _ in range(2)]
        pages = [context.new_page() for context in contexts]
        loads = [loads_of(page) for page in pages]
        for page in pages:
            page.goto(board.url)
            for tenant in (CAFE, WORKSHOP):
                expect(shop(page, tenant)).to_have_attribute("data-state", "live", timeout=20_000)
        yield pages[0], pages[1]
        for context in contexts:
            context.close()
        assert loads == [[], []]

    def test_an_order_added_in_one_shows_in_the_other_at_its_tenant_only(self, windows: tuple[Page, Page]) -> None:
        one, other = windows
        shop(one, CAFE).get_by_label("What is ordered").fill("Affogato <b>2</b>")
        shop(one, CAFE).get_by_role("button", name="Add order").click()
        for page in (one, other):
            expect(cards(page, CAFE).get_by_text("Affogato <b>2</b>")).to_be_visible(timeout=20_000)
            expect(cards(page, WORKSHOP).get_by_text("Affogato")).to_have_count(0)

    def test_a_burst_shows_in_both_to_the_last_change(
        self, windows: tuple[Page, Page], connection: psycopg.Connection
    ) -> None:
        shop(windows[0], CAFE).locator(".burst").click()
        for page in windows:
            expect(shop(page, CAFE).locator(".events")).to_have_text("500 events", timeout=20_000)
            expect(shop(page, CAFE).locator(".refreshes")).to_have_text("0 refreshes")
            shows_the_table(page, connection)

    def test_cutting_the_listener_loses_nothing_and_refreshes_nothing(
        self, windows: tuple[Page, Page], board: GunicornServer, connection: psycopg.Connection
    ) -> None:
        for round in range(1, 4):
            windows[0].get_by_role("button", name="Cut the listener").click()
            expect(windows[0].locator("#cut-result")).to_contain_text("Cut.", timeout=20_000)
            for number in range(5):
                post(board, "/orders", {"tenant": WORKSHOP, "title": f"Number {number} of round {round}"})
            for page in windows:
                expect(shop(page, WORKSHOP).locator(".events")).to_have_text(f"{5 * round} events", timeout=20_000)
                expect(shop(page, WORKSHOP).locator(".refreshes")).to_have_text("0 refreshes")
                shows_the_table(page, connection)
            expect(windows[0].locator("#cut-result")).to_be_empty(timeout=20_000)

    def test_a_restart_of_the_server_brings_the_windows_back_with_what_they_have_missed(
        self, windows: tuple[Page, Page], board: GunicornServer, connection: psycopg.Connection
    ) -> None:
        board.stop()
        expect(shop(windows[0], CAFE)).not_to_have_attribute("data-state", "live", timeout=20_000)
        insert(connection, "During the restart")
        board.start()
        for page in windows:
            expect(shop(page, CAFE)).to_have_attribute("data-state", "live", timeout=30_000)
            expect(cards(page, CAFE).get_by_text("During the restart")).to_be_visible(timeout=20_000)
        post(board, "/orders", {"tenant": CAFE, "title": "After the restart"})
        for page in windows:
            expect(cards(page, CAFE).get_by_text("After the restart")).to_be_visible(timeout=20_000)
            expect(shop(page, CAFE).locator(".refreshes")).to_have_text("0 refreshes")
            shows_the_table(page, connection)
