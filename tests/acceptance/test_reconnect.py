"""Pages whose worker is stopped or killed: each browser comes back, and nothing that was missed goes unsaid."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgfanout import PostgresHub
from tests.conftest import Freeze
from tests.support.browser import Tab
from tests.support.gunicorn import GunicornServer
from tests.support.nginx import NginxServer
from tests.support.wait import eventually

from .apps.names import TENANT
from .conftest import Serve
from .test_gunicorn import worker_is_gone

LONG = 60.0
OTHER = "22222222-2222-4222-8222-222222222222"

# A stream that has had an event and one that has not, each detached and in a thread. Browsers allow six connections.
STREAMS = ("busy-auto", "busy-never", "quiet-auto", "quiet-never")


@pytest.fixture
def hub(fresh_database_url: str, history: bool) -> Iterator[PostgresHub]:
    """Somebody else who publishes."""
    with PostgresHub(fresh_database_url, history=history) as hub:
        if history:
            hub.install_history()
        yield hub


@pytest.fixture
def server(serve: Serve, hub: PostgresHub, history: bool) -> GunicornServer:
    env = {"PGFANOUT_HISTORY": str(history), "PGFANOUT_KEEPALIVE": "0.3"}
    return serve("tests.acceptance.apps.follower:app", threads=8, env=env)


def publish(hub: PostgresHub, payload: object, *channels: str, type: str = "order") -> None:
    hub.publish_many([(channel, TENANT, payload, type) for channel in channels])


def kinds(server: GunicornServer) -> tuple[int, int]:
    """How many streams are detached, and how many are in threads."""
    with urllib.request.urlopen(f"{server.url}/stats", timeout=LONG) as answer:
        stats = json.load(answer)
    return stats["detached"], stats["in_threads"]


def follow(tab: Tab, server: GunicornServer, *streams: str) -> None:
    """Open the page, and wait until each stream has had its first bytes."""
    tab.open(f"{server.url}/?" + "&".join(f"stream={name}" for name in streams))
    eventually(lambda: all(count == 1 for count in each(tab, "opened").values()), LONG)
    detached = sum(name.endswith("auto") for name in streams)
    eventually(lambda: kinds(server) == (detached, len(streams) - detached), LONG)


def each(tab: Tab, field: str) -> dict[str, Any]:
    """A field of each stream of the page."""
    return {name: stream[field] for name, stream in tab.run("window.streams").items()}


def wait_until(tab: Tab, check: Callable[[str, list[Any]], object]) -> None:
    """Wait until that is true of the name, and what it has brought, of each stream."""

    def holds() -> bool:
        seen = each(tab, "seen")
        assert all(check(name, events) for name, events in seen.items()), f"the streams brought {seen}"
        return True

    eventually(holds, LONG, interval=0.05)


def replace_worker(
    server: GunicornServer, freeze: Freeze, number: signal.Signals, meanwhile: Callable[[], object]
) -> None:
    """End the only worker, and do something before there is another one. Browsers that come back wait for that."""
    (pid,) = server.worker_pids()
    thaw = freeze(server.pid)
    os.kill(pid, number)
    eventually(lambda: worker_is_gone(pid), LONG)
    meanwhile()
    thaw()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("history", [True, False], ids=["history", "no history"])
def test_what_is_published_between_two_workers_comes_or_is_told(
    server: GunicornServer, tab: Tab, hub: PostgresHub, freeze: Freeze, history: bool, number: signal.Signals
) -> None:
    follow(tab, server, *STREAMS)
    publish(hub, "before", "busy")
    wait_until(tab, lambda name, seen: seen == ["before"] * name.startswith("busy"))
    replace_worker(server, freeze, number, lambda: publish(hub, "missed", "busy", "quiet"))
    told = "missed" if history else "refresh"
    wait_until(tab, lambda name, seen: seen == ["before"] * name.startswith("busy") + [told])
    publish(hub, "after", "busy", "quiet")
    wait_until(tab, lambda name, seen: seen == ["before"] * name.startswith("busy") + [told, "after"])


def others_publish_and_all_is_pruned(hub: PostgresHub, url: str, cursors: Callable[[], set[str]]) -> int:
    """Another tenant publishes. Once a page's streams have the last number, the log forgets everything up to it."""
    hub.publish_many([("quiet", OTHER, count) for count in range(50)])
    with psycopg.connect(url, autocommit=True) as connection:
        [(last,)] = connection.execute("SELECT max(number) FROM pgfanout.event").fetchall()
        eventually(lambda: cursors() == {str(last)}, LONG)
        with connection.transaction():
            connection.execute("UPDATE pgfanout.log SET pruned_to = %s", [last])
            connection.execute("DELETE FROM pgfanout.event")
    return int(last)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("history", [True])
def test_an_idle_page_keeps_up_with_what_is_pruned(
    server: GunicornServer,
    tab: Tab,
    hub: PostgresHub,
    freeze: Freeze,
    fresh_database_url: str,
    number: signal.Signals,
) -> None:
    follow(tab, server, "quiet-auto", "quiet-never")
    others_publish_and_all_is_pruned(hub, fresh_database_url, lambda: set(each(tab, "cursor").values()))
    replace_worker(server, freeze, number, lambda: publish(hub, "missed", "quiet"))
    wait_until(tab, lambda _, seen: seen == ["missed"])


@pytest.mark.parametrize("history", [True])
def test_an_idle_feed_that_the_browser_gives_up_goes_on_from_its_newest_number(
    server: GunicornServer,
    tab: Tab,
    hub: PostgresHub,
    fresh_database_url: str,
    proxy: Callable[[str], NginxServer],
) -> None:
    with proxy(server.url) as front:
        tab.open(f"{front.url}/feed")
        eventually(lambda: tab.run("window.state") == "live", LONG)
        last = others_publish_and_all_is_pruned(hub, fresh_database_url, lambda: {tab.run("window.cursor")})
        server.stop()
        eventually(lambda: "GET /events" in front.errors, LONG)
        publish(hub, "missed", "quiet")
        server.start()
        eventually(lambda: tab.run("window.seen") == ["missed"], LONG)
        assert tab.run("window.asked.at(-1)").endswith(f"last_event_id={last}")


@pytest.mark.parametrize("history", [True, False], ids=["history", "no history"])
def test_a_page_that_is_refused_for_a_while_has_not_forgotten_where_it_was(
    server: GunicornServer, serve: Serve, tab: Tab, hub: PostgresHub, history: bool
) -> None:
    follow(tab, server, "quiet-auto")
    server.stop()
    publish(hub, "missed", "quiet")
    server.env["PGFANOUT_MAX_STREAMS"] = "0"
    server.env["PGFANOUT_RETRY_AFTER"] = "0.2"
    server.start()
    eventually(lambda: each(tab, "opened")["quiet-auto"] >= 3, LONG)
    server.stop()
    del server.env["PGFANOUT_MAX_STREAMS"]
    server.start()
    wait_until(tab, lambda _, seen: seen == ["missed" if history else "refresh"])
