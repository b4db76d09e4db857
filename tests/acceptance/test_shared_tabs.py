"""Tabs of one browser that have one stream between them, in real browsers and with a real server."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgfanout import PostgresHub
from tests.support.browser import Browser, Chromium, Tab
from tests.support.gunicorn import GunicornServer
from tests.support.wait import eventually

from .apps.names import tenant_of
from .conftest import Serve

LONG = 60.0
APP = "tests.acceptance.apps.tabs:app"

Publish = Callable[..., None]


@pytest.fixture(params=[True, False], ids=["history", "no history"])
def history(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def publish(fresh_database_url: str, history: bool) -> Iterator[Publish]:
    """Adds numbers of an owner and announces them, each in a transaction."""
    with (
        psycopg.connect(fresh_database_url, autocommit=True) as connection,
        PostgresHub(fresh_database_url, history=history) as hub,
    ):
        if history:
            hub.install_history()
        connection.execute("CREATE TABLE numbers (id bigserial, owner text, number int)")

        def publish(*numbers: int, owner: str = "ann") -> None:
            for number in numbers:
                with connection.transaction():
                    connection.execute("INSERT INTO numbers (owner, number) VALUES (%s, %s)", (owner, number))
                    hub.publish("numbers", tenant_of(owner), number, type="number", executor=connection)

        yield publish


@pytest.fixture
def server(serve: Serve, publish: Publish, history: bool) -> GunicornServer:
    return serve(APP, env={"PGFANOUT_HISTORY": str(history)})


class Tabs:
    """The tabs of one visitor."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url = browser, url
        self._base = browser.tab()
        self._open: list[Tab] = []

    def __call__(self, count: int, user: str = "ann", query: str = "") -> list[Tab]:
        """Log a user in and open tabs, each after the last one follows."""
        self._base.open(f"{self._url}/login/{user}")
        self._base.run("feed.close()")
        return [self._one(f"{self._url}/?{query}") for _ in range(count)]

    def _one(self, url: str) -> Tab:
        tab = self._browser.tab(beside=self._base)
        self._open.append(tab)
        tab.open(url)
        is_live(tab)
        return tab

    def close(self, tab: Tab) -> None:
        self._open.remove(tab)
        tab.close()

    def end(self) -> list[str]:
        """Close all, and return what their scripts have failed at."""
        errors = [error for tab in self._open for error in tab.errors()]
        for tab in [*self._open, self._base]:
            tab.close()
        return errors


@pytest.fixture
def tabs(any_browser: Browser, server: GunicornServer) -> Iterator[Tabs]:
    tabs = Tabs(any_browser, server.url)
    try:
        yield tabs
    finally:
        errors = tabs.end()
    assert errors == []


def seen(tab: Tab, name: str) -> Any:
    return tab.run(f"window.seen?.{name}")


def is_live(tab: Tab) -> None:
    eventually(lambda: seen(tab, "statuses.at(-1)") == "live", LONG, interval=0.05)


def show(tabs: list[Tab], *numbers: int) -> None:
    """Wait until each tab has had these numbers, once and in order."""

    def check() -> bool:
        shown = [seen(tab, "numbers") for tab in tabs]
        assert all(each == list(numbers) for each in shown), f"the tabs show {shown}, not {list(numbers)}"
        return True

    eventually(check, LONG, interval=0.05)


def gets_more(tab: Tab) -> None:
    """Wait until some numbers more have come."""
    before = seen(tab, "numbers.length")
    eventually(lambda: seen(tab, "numbers.length") > before + 5, LONG)


def asked(server: GunicornServer) -> dict[str, int]:
    with urllib.request.urlopen(f"{server.url}/asked", timeout=LONG) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


def has_streams(server: GunicornServer, count: int) -> None:
    eventually(lambda: asked(server)["open"] == count, LONG)


def loads(tabs: list[Tab]) -> list[int]:
    return [seen(tab, "loads") for tab in tabs]


def test_eight_tabs_have_one_stream_and_each_event_once(
    server: GunicornServer, tabs: Tabs, publish: Publish, history: bool
) -> None:
    eight = tabs(8)
    publish(*range(20))
    show(eight, *range(20))
    assert asked(server)["open"] == 1
    assert loads(eight) == [0 if history else 1] * 8


def test_a_tab_that_is_opened_between_events_misses_none(tabs: Tabs, publish: Publish, history: bool) -> None:
    first = tabs(2)
    publish(1, 2)
    show(first, 1, 2)
    later = tabs(2)
    publish(3)
    show(first, 1, 2, 3)
    show(later, *((3,) if history else (1, 2, 3)))  # a page that was rendered with a cursor has the rest in its state


def test_the_next_tab_leads_when_the_leader_is_closed(
    server: GunicornServer, tabs: Tabs, publish: Publish, history: bool
) -> None:
    leader, *others = tabs(4)
    publish(1)
    show([leader, *others], 1)
    tabs.close(leader)
    publish(2, 3, 4)
    show(others, 1, 2, 3, 4)
    publish(5)
    show(others, 1, 2, 3, 4, 5)
    has_streams(server, 1)
    assert loads(others) == [0 if history else 2] * 3


def test_all_tabs_in_turn_lead(tabs: Tabs, publish: Publish) -> None:
    left = tabs(4)
    for number in range(4):
        publish(number)
        show(left, *range(number + 1))
        tabs.close(left.pop(0))


@pytest.mark.parametrize("history", [True], indirect=True)
def test_no_event_is_lost_or_shown_twice_while_leaders_are_closed(
    server: GunicornServer, tabs: Tabs, publish: Publish
) -> None:
    left = tabs(6)
    enough, published = threading.Event(), itertools.count()

    def go_on_publishing() -> None:
        while not enough.wait(0.005):
            publish(next(published))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        publishing = pool.submit(go_on_publishing)
        try:
            while len(left) > 2:
                gets_more(left[-1])
                tabs.close(left.pop(0))
        finally:
            enough.set()
        publishing.result()
    show(left, *range(next(published)))
    assert loads(left) == [0, 0]


def test_a_restart_is_one_load_for_each_tab_or_none(
    server: GunicornServer, tabs: Tabs, publish: Publish, history: bool
) -> None:
    three = tabs(3)
    publish(1)
    show(three, 1)
    server.stop()
    publish(2)
    server.start()
    show(three, 1, 2)
    for tab in three:
        is_live(tab)
    publish(3)
    show(three, 1, 2, 3)
    assert loads(three) == [0 if history else 2] * 3
    has_streams(server, 1)


def test_a_leader_that_is_suspended_without_notice_is_replaced_and_comes_back(
    server: GunicornServer, tabs: Tabs, publish: Publish, history: bool
) -> None:
    leader, *others = tabs(3, query="impatient")
    publish(1)
    show([leader, *others], 1)
    leader.run("void setTimeout(() => { for (const end = Date.now() + 12_000; Date.now() < end; ); })")
    publish(2)
    show(others, 1, 2)
    publish(3)
    show(others, 1, 2, 3)
    show([leader], 1, 2, 3)
    publish(4)
    show([leader, *others], 1, 2, 3, 4)
    has_streams(server, 1)


@pytest.mark.parametrize("any_browser", ["chromium"], indirect=True)
def test_a_leader_that_the_browser_freezes_hands_on(
    server: GunicornServer, tabs: Tabs, publish: Publish, any_browser: Chromium
) -> None:
    leader, *others = tabs(3)
    publish(1)
    show([leader, *others], 1)
    page = leader.page  # type: ignore[attr-defined]
    session = page.context.new_cdp_session(page)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    publish(2)
    show(others, 1, 2)
    has_streams(server, 1)
    session.send("Page.setWebLifecycleState", {"state": "active"})
    show([leader], 1, 2)
    publish(3)
    show([leader, *others], 1, 2, 3)
    has_streams(server, 1)


@pytest.mark.parametrize("any_browser", ["chromium"], indirect=True)
@pytest.mark.parametrize("history", [True], indirect=True)
def test_the_next_tab_leads_when_the_leader_crashes(server: GunicornServer, tabs: Tabs, publish: Publish) -> None:
    leader, *others = tabs(3)
    page = leader.page  # type: ignore[attr-defined]
    with page.expect_event("crash"), pytest.raises(Exception, match="crash"):
        page.goto("chrome://crash")
    tabs.close(leader)
    publish(1, 2)
    show(others, 1, 2)
    has_streams(server, 1)


def test_two_users_of_one_browser_never_see_each_others_events(
    server: GunicornServer, tabs: Tabs, publish: Publish
) -> None:
    anns, bobs = tabs(2, "ann"), tabs(2, "bob")
    publish(1, 2, owner="ann")
    publish(10, 20, owner="bob")
    show(anns, 1, 2)
    show(bobs, 10, 20)
    assert asked(server)["open"] == 2
    tabs.close(anns.pop(0))  # the other one of ann's tabs now asks with bob's cookie
    eventually(lambda: seen(anns[0], "expired") == 1, LONG)
    publish(3, owner="ann")
    publish(30, owner="bob")
    show(bobs, 10, 20, 30)
    assert seen(anns[0], "numbers") == [1, 2]


def test_a_session_that_has_expired_is_told_to_each_tab_once_and_ends_all_requests(
    server: GunicornServer, tabs: Tabs, any_browser: Browser
) -> None:
    three = tabs(3)
    three[0].run("fetch('/logout').then(() => true)")
    server.stop()
    server.start()
    eventually(lambda: [seen(tab, "expired") for tab in three] == [1, 1, 1], LONG)
    before = asked(server)
    three[0].run("new Promise((resolve) => setTimeout(() => resolve(true), 5000))")
    assert asked(server) == before
    assert [seen(tab, "expired") for tab in three] == [1, 1, 1]
    assert before["open"] == 0


@pytest.mark.parametrize("query", ["alone", "lockless"])
@pytest.mark.parametrize("history", [False], indirect=True)
def test_without_a_key_or_locks_each_tab_has_its_own(
    server: GunicornServer, tabs: Tabs, publish: Publish, query: str
) -> None:
    three = tabs(3, query=query)
    publish(1)
    show(three, 1)
    assert asked(server)["open"] == 3
