"""The example's board as users get it: gunicorn with its configuration, curl's view and a browser's."""

from __future__ import annotations

import http.client
import json
import signal
import statistics
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from flask_example.tenants import TENANTS
from tests.support.gunicorn import GunicornServer
from tests.support.sse import EventSource

from .conftest import Serve

CAFE, WORKSHOP = (str(tenant.id) for tenant in TENANTS)
LONG = 20.0


@pytest.fixture
def board(serve: Serve) -> GunicornServer:
    return serve(
        "flask_example:create_app()",
        config="flask_example/gunicorn.conf.py",
        threads=None,
        workers=None,
        worker_class=None,
    )


def post(server: GunicornServer, path: str, body: object) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LONG) as answer:
        return answer.status, json.load(answer)


def test_an_order_reaches_its_tenants_stream_and_no_other(board: GunicornServer) -> None:
    with (
        EventSource(f"{board.url}/events?tenant={CAFE}") as cafe,
        EventSource(f"{board.url}/events?tenant={WORKSHOP}") as workshop,
    ):
        assert post(board, "/orders", {"tenant": CAFE, "title": "Flat white"})[0] == 201
        assert post(board, "/orders", {"tenant": WORKSHOP, "title": "Brake pads"})[0] == 201
        here, there = cafe.next_event(LONG), workshop.next_event(LONG)
    assert [here.type, json.loads(here.data)["title"]] == ["order.created", "Flat white"]
    assert [there.type, json.loads(there.data)["title"]] == ["order.created", "Brake pads"]


def test_a_post_becomes_a_frame_within_milliseconds(board: GunicornServer) -> None:
    _, order = post(board, "/orders", {"tenant": CAFE, "title": "Flat white"})
    parts = urlsplit(board.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=LONG)
    times = []
    with EventSource(f"{board.url}/events?tenant={CAFE}") as source:
        for number in range(200):
            status = ("new", "preparing")[number % 2]
            begin = time.perf_counter()
            connection.request(
                "POST",
                f"/orders/{order['id']}",
                json.dumps({"status": status}),
                {"Content-Type": "application/json"},
            )
            connection.getresponse().read()
            assert json.loads(source.next_event(LONG).data)["status"] == status
            times.append(time.perf_counter() - begin)
    connection.close()
    median, slowest = statistics.median(times) * 1000, max(times) * 1000
    print(f"\nPOST to frame, 200 times: median {median:.2f} ms, slowest {slowest:.2f} ms")


def test_forty_pages_of_one_worker_share_one_listening_session(board: GunicornServer, fresh_database_url: str) -> None:
    sources = [EventSource(f"{board.url}/events?tenant={CAFE}") for _ in range(40)]
    post(board, "/orders", {"tenant": CAFE, "title": "Flat white"})
    for source in sources:
        assert source.next_event(LONG).type == "order.created"
    with psycopg.connect(fresh_database_url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'pgfanout-listener' AND datname = current_database()"
        ).fetchone()
    assert found == (1,)
    for source in sources:
        source.close()


def test_the_status_line_tells_of_streams_and_threads(board: GunicornServer, page: Page) -> None:
    sources = [EventSource(f"{board.url}/events?tenant={CAFE}") for _ in range(40)]
    page.goto(board.url)
    expect(page.locator("#status")).to_have_text("42 streams open, 1 thread of 8 busy")
    for source in sources:
        source.close()
    expect(page.locator("#status")).to_have_text("2 streams open, 1 thread of 8 busy")


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


@pytest.mark.browser
class TestWindows:
    """Two windows of the board."""

    @pytest.fixture
    def windows(self, board: GunicornServer, browser: Browser) -> Iterator[tuple[Page, Page]]:
        contexts = [browser.new_context() for _ in range(2)]
        pages = [context.new_page() for context in contexts]
        for page in pages:
            page.goto(board.url)
            for tenant in (CAFE, WORKSHOP):
                expect(shop(page, tenant)).to_have_attribute("data-state", "live", timeout=20_000)
        yield pages[0], pages[1]
        for context in contexts:
            context.close()

    def test_an_order_added_in_one_shows_in_the_other_at_its_tenant_only(self, windows: tuple[Page, Page]) -> None:
        one, other = windows
        shop(one, CAFE).get_by_label("What is ordered").fill("Affogato <b>2</b>")
        shop(one, CAFE).get_by_role("button", name="Add order").click()
        for page in (one, other):
            expect(cards(page, CAFE).get_by_text("Affogato <b>2</b>")).to_be_visible(timeout=20_000)
            expect(cards(page, WORKSHOP).get_by_text("Affogato")).to_have_count(0)

    def test_a_burst_makes_the_windows_refresh_and_agree(
        self, windows: tuple[Page, Page], board: GunicornServer
    ) -> None:
        shop(windows[0], CAFE).locator(".burst").click()
        for page in windows:
            expect(shop(page, CAFE).locator(".refreshes")).not_to_have_text("0 refreshes", timeout=20_000)
            expect(shop(page, CAFE)).to_have_attribute("data-state", "live", timeout=20_000)
        post(board, "/orders", {"tenant": CAFE, "title": "The last one"})
        for page in windows:
            expect(cards(page, CAFE).get_by_text("The last one")).to_be_visible(timeout=20_000)
        assert counts(windows[0]) == counts(windows[1])

    def test_cutting_the_listener_refreshes_both_windows_and_heals(
        self, windows: tuple[Page, Page], board: GunicornServer
    ) -> None:
        windows[0].get_by_role("button", name="Cut the listener").click()
        for page in windows:
            expect(shop(page, WORKSHOP).locator(".refreshes")).to_have_text("1 refresh", timeout=20_000)
        post(board, "/orders", {"tenant": WORKSHOP, "title": "Live again"})
        for page in windows:
            expect(cards(page, WORKSHOP).get_by_text("Live again")).to_be_visible(timeout=20_000)

    def test_a_restart_of_the_server_brings_the_windows_back(
        self, windows: tuple[Page, Page], board: GunicornServer
    ) -> None:
        board.stop()
        expect(shop(windows[0], CAFE)).not_to_have_attribute("data-state", "live", timeout=20_000)
        board.start()
        for page in windows:
            expect(shop(page, CAFE)).to_have_attribute("data-state", "live", timeout=30_000)
        post(board, "/orders", {"tenant": CAFE, "title": "After the restart"})
        for page in windows:
            expect(cards(page, CAFE).get_by_text("After the restart")).to_be_visible(timeout=20_000)


def shop(page: Page, tenant: str) -> Locator:
    return page.locator(f"[data-tenant='{tenant}']")


def cards(page: Page, tenant: str) -> Locator:
    return shop(page, tenant).locator(".columns")


def counts(page: Page) -> list[str]:
    return shop(page, CAFE).locator(".count").all_text_contents()
