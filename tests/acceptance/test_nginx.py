"""The deployment page's nginx configuration in front of a real gunicorn."""

from __future__ import annotations

from collections.abc import Callable

from pgfanout import PostgresHub
from tests.support.nginx import NginxServer
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .apps.names import TENANT
from .conftest import Serve

LONG = 20.0


def test_events_pass_at_once_and_close_arrives(
    serve: Serve, proxy: Callable[[str], NginxServer], fresh_database_url: str
) -> None:
    server = serve()
    with proxy(server.url) as front, PostgresHub(fresh_database_url) as hub:
        source = EventSource(f"{front.url}/events?tenant={TENANT}")
        for number in range(50):
            hub.publish("orders", TENANT, number)
            assert source.next_event(LONG).data == str(number)
        server.stop()
        assert source.events_until(lambda event: event.type == "close", LONG)
        assert source.wait_end(LONG)
        source.close()


def test_a_browser_that_leaves_the_proxy_leaves_the_server(
    serve: Serve, proxy: Callable[[str], NginxServer], fresh_database_url: str
) -> None:
    server = serve(threads=4, env={"PGFANOUT_KEEPALIVE": "0.1"})
    with proxy(server.url) as front, PostgresHub(fresh_database_url) as hub:
        for number in range(12):  # more than the server has threads
            source = eventually(lambda: accepted(f"{front.url}/events?tenant={TENANT}"))
            assert source is not None
            with source:
                hub.publish("orders", TENANT, number)
                assert source.next_event(LONG).data == str(number)


def accepted(url: str) -> EventSource | None:
    """A stream, or None when the server has no thread for one yet."""
    source = EventSource(url)
    source.wait_for(lambda source: source.comments or source.ended)
    if source.comments:
        return source
    source.close()
    return None
