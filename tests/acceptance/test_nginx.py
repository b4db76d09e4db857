"""The deployment page's nginx configuration in front of a real gunicorn."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from pgfanout import PostgresHub
from tests.support import nginx
from tests.support.need import need
from tests.support.nginx import NginxServer
from tests.support.ports import free_port
from tests.support.sse import EventSource
from tests.support.wait import eventually

from .conftest import Serve
from .test_readme import block

TENANT = "11111111-1111-4111-8111-111111111111"
LONG = 20.0


@pytest.fixture
def proxy() -> Callable[[str], NginxServer]:
    """Makes an nginx of the documented configuration in front of the given server."""
    need(not nginx.missing_reason(), nginx.missing_reason())

    def make(url: str) -> NginxServer:
        site = block("docs/deployment.md", "upstream app {")
        port = free_port()
        site = site.replace("127.0.0.1:8000", urlsplit(url).netloc)
        site = site.replace("listen 80;", f"listen 127.0.0.1:{port};")
        return NginxServer(site, port=port)

    return make


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
            with eventually(lambda: accepted(f"{front.url}/events?tenant={TENANT}")) as source:
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
