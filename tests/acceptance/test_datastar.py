"""The pages of docs/datastar.md in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route

from pgfanout import PostgresHub
from tests.support import datastar
from tests.support.gunicorn import GunicornServer
from tests.support.nginx import NginxServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Insert, MakeShop, post, show

LONG = 30.0
TENANT = 1

Start = Callable[..., GunicornServer]


@pytest.fixture
def start(make_shop: MakeShop) -> Start:
    """Starts the document's application."""
    pages = {name: name for name in ("page", "orders", "total", "total_page")}
    return make_shop("docs/datastar.md", pages, {"datastar.js": datastar.script()})


@pytest.fixture
def shop(start: Start) -> GunicornServer:
    return start()


def lists(page: Page, *notes: str) -> None:
    """Wait until the page lists that."""
    eventually(lambda: page.locator("#orders li").all_text_contents() == list(notes), LONG)


def shows_total(page: Page, text: str) -> None:
    eventually(lambda: page.locator("#total").inner_text() == text, LONG)


def test_the_page_loads_and_follows(shop: GunicornServer, page: Page, insert: Insert) -> None:
    insert("tea")
    page.goto(shop.url)
    lists(page, "tea")
    post(f"{shop.url}/orders", note="<b>milk</b>")
    lists(page, "tea", "<b>milk</b>")


def test_a_page_behind_nginx_loads_again_after_the_502_of_a_restart(
    shop: GunicornServer, page: Page, insert: Insert, proxy: Callable[[str], NginxServer]
) -> None:
    insert("tea")
    with proxy(shop.url) as front:
        page.goto(front.url)
        lists(page, "tea")
        shop.stop()
        eventually(lambda: "GET /events" in front.errors, LONG)
        insert("milk")
        shop.start()
        lists(page, "tea", "milk")
        post(f"{shop.url}/orders", note="bread")
        lists(page, "tea", "milk", "bread")


def test_patches_are_patched_in_and_what_users_have_typed_stays_text(
    shop: GunicornServer, page: Page, insert: Insert
) -> None:
    page.goto(f"{shop.url}/total/page")
    shows_total(page, "0 orders")
    insert("<i>tea</i>\rselector main\rmode remove")
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    _follows(shop, page)
    shows_total(page, "1 orders, the last is <i>tea</i> selector main mode remove")
    assert [url for url in fetched if "events" not in url] == []


def test_a_page_of_patches_follows_again_after_the_502_of_a_restart(
    shop: GunicornServer, page: Page, insert: Insert, proxy: Callable[[str], NginxServer]
) -> None:
    with proxy(shop.url) as front:
        page.goto(f"{front.url}/total/page")
        shows_total(page, "0 orders")
        shop.stop()
        eventually(lambda: "GET /total/events" in front.errors, LONG)
        insert("tea")
        shop.start()
        _follows(shop, page)
        shows_total(page, "1 orders, the last is tea")


def test_with_history_a_page_of_patches_gets_what_was_published_during_a_restart(
    start: Start, page: Page, insert: Insert, proxy: Callable[[str], NginxServer], fresh_database_url: str
) -> None:
    with PostgresHub(fresh_database_url, history=True) as hub:
        hub.install_history()
        shop = start(PGFANOUT_HISTORY=True)
        with proxy(shop.url) as front:
            page.goto(f"{front.url}/total/page")
            shows_total(page, "0 orders")
            insert("tea")
            _follows(shop, page)
            shop.stop()
            eventually(lambda: "GET /total/events" in front.errors, LONG)
            hub.publish("totals", TENANT, 'elements <p id="total">missed</p>', type="datastar-patch-elements")
            shop.start()
            shows_total(page, "missed")


def test_a_page_of_patches_that_was_hidden_follows_again(shop: GunicornServer, page: Page, insert: Insert) -> None:
    asked: list[str | None] = []
    page.on("request", lambda each: asked.append(each.headers.get("last-event-id")) if "/events" in each.url else None)
    page.goto(f"{shop.url}/total/page")
    insert("tea")
    _follows(shop, page)
    show(page, hidden=True)
    show(page, hidden=False)
    eventually(lambda: page.evaluate("1") and len(asked) == 2, LONG)
    assert asked[1]
    insert("milk")
    _follows(shop, page)
    shows_total(page, "2 orders, the last is milk")


@pytest.mark.parametrize(("path", "shown"), [("/", "tea"), ("/total/page", "1 orders, the last is tea")])
def test_a_page_that_is_refused_comes_back(start: Start, page: Page, insert: Insert, path: str, shown: str) -> None:
    shop = start(PGFANOUT_MAX_STREAMS=1, PGFANOUT_RETRY_AFTER=1.0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/events" in request.url else None)
    other = EventSource(f"{shop.url}/events")
    page.goto(shop.url + path)
    eventually(lambda: page.evaluate("1") and len(asked) >= 2, LONG)
    other.close()
    insert("tea")
    if path != "/":
        _follows(shop, page)
    eventually(lambda: page.locator("main").inner_text().strip() == shown, LONG)


def test_a_page_of_hints_whose_first_answer_is_a_502_comes_back(
    shop: GunicornServer, page: Page, insert: Insert
) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=502, body="bad gateway", content_type="text/html")

    insert("tea")
    page.route("**/events", refuse, times=1)
    page.goto(shop.url)
    lists(page, "tea")


def _follows(shop: GunicornServer, page: Page) -> None:
    """Publish the total until the page has it: nothing tells when it follows."""
    before = page.locator("#total").inner_text()

    def has_changed() -> bool:
        post(f"{shop.url}/total")
        return page.locator("#total").inner_text() != before

    eventually(has_changed, LONG, interval=0.2)
