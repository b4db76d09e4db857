"""The pages of docs/htmx.md in a real Chromium, with htmx 2 and htmx 4."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from tests.support import npm
from tests.support.gunicorn import GunicornServer
from tests.support.nginx import NginxServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Insert, MakeShop, post, show

LONG = 30.0
SCRIPTS = {
    2: ("htmx2/dist/htmx.min.js", "htmx-ext-sse/dist/sse.min.js"),
    4: ("htmx4/dist/htmx.min.js", "htmx4/dist/ext/hx-sse.min.js"),
}

Start = Callable[..., GunicornServer]


@pytest.fixture(params=[2, 4], ids=["htmx 2", "htmx 4"])
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def start(make_shop: MakeShop, version: int) -> Start:
    """Starts the document's application with the pages of one version of htmx."""
    modules = npm.install("htmx2@npm:htmx.org@2", "htmx4@npm:htmx.org@4", "htmx-ext-sse@2")
    suffix = "" if version == 2 else str(version)
    pages = {"page": f"page{suffix}", "total_page": f"total_page{suffix}", "orders": "orders", "total": "total"}
    return make_shop("docs/htmx.md", pages, {Path(script).name: modules / script for script in SCRIPTS[version]})


@pytest.fixture
def shop(start: Start) -> GunicornServer:
    return start()


def lists(page: Page, *notes: str) -> None:
    """Wait until the page lists that."""
    eventually(lambda: page.locator("#orders li").all_text_contents() == list(notes), LONG)


def test_the_page_loads_and_follows(shop: GunicornServer, page: Page, insert: Insert) -> None:
    insert("tea")
    page.goto(shop.url)
    lists(page, "tea")
    post(f"{shop.url}/orders", note="<b>milk</b>")
    lists(page, "tea", "<b>milk</b>")
    page.locator("input").fill("bread")
    page.locator("input").press("Enter")
    lists(page, "tea", "<b>milk</b>", "bread")


def test_fragments_are_swapped_in(shop: GunicornServer, page: Page, insert: Insert) -> None:
    page.goto(f"{shop.url}/total/page")
    total = page.locator("#total")
    eventually(lambda: total.inner_html().strip() == "<b>0</b> orders", LONG)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    insert("tea")
    post(f"{shop.url}/total")
    eventually(lambda: "<b>1</b> orders" in total.inner_html(), LONG)
    assert fetched == []


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


@pytest.mark.parametrize(
    ("path", "status", "shown"),
    [("/", 502, "tea"), ("/", 401, "tea"), ("/", 200, "tea"), ("/total/page", 502, "1 orders")],
)
def test_a_page_whose_first_answer_is_no_stream_comes_back(
    shop: GunicornServer, page: Page, insert: Insert, path: str, status: int, shown: str
) -> None:
    """502 is a proxy's, 200 that of a page to log in, to which it was redirected."""

    def refuse(route: Route) -> None:
        route.fulfill(status=status, body="<b>no stream</b>", content_type="text/html")

    insert("tea")
    page.route("**/events", refuse, times=1)
    page.goto(shop.url + path)
    eventually(lambda: page.locator("main").inner_text().strip() == shown, LONG)


def test_a_tab_that_was_hidden_shows_what_was_missed(
    shop: GunicornServer, page: Page, insert: Insert, version: int
) -> None:
    asked: list[str | None] = []
    page.on("request", lambda each: asked.append(each.headers.get("last-event-id")) if "/events" in each.url else None)
    page.goto(shop.url)
    insert("tea")
    post(f"{shop.url}/orders", note="milk")
    lists(page, "tea", "milk")
    show(page, hidden=True)
    insert("bread")
    show(page, hidden=False)
    if version == 2:  # its stream went on
        post(f"{shop.url}/orders", note="salt")
        lists(page, "tea", "milk", "bread", "salt")
        assert asked == [None]
    else:
        eventually(lambda: page.evaluate("1") and len(asked) == 2, LONG)
        assert asked[1]
        lists(page, "tea", "milk", "bread")


def test_a_page_that_is_refused_comes_back_when_it_was_asked_to(start: Start, page: Page, insert: Insert) -> None:
    shop = start(PGFANOUT_MAX_STREAMS=1, PGFANOUT_RETRY_AFTER=4.0)
    insert("tea")
    times: list[float] = []
    page.on("request", lambda request: times.append(time.monotonic()) if request.url.endswith("/events") else None)
    other = EventSource(f"{shop.url}/events")
    page.goto(shop.url)
    eventually(lambda: page.evaluate("1") and len(times) >= 2, LONG)
    other.close()
    lists(page, "tea")
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert min(pauses) > 1.0, pauses
