"""The README's code, run as it stands there."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import psycopg
import pytest

from pgfanout import REFRESH_EVENT
from tests.support.sse import EventSource

from .apps.names import block
from .conftest import Serve

LONG = 20.0


def test_the_ten_lines_serve_events(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(block("README.md", "# shop.py"))
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(block("README.md", "# gunicorn.conf.py"))
    server = serve("shop:app", config=str(config), threads=None, pythonpath=[tmp_path])
    source = EventSource(f"{server.url}/events")
    request = urllib.request.Request(f"{server.url}/orders/42/ship", method="POST")
    with urllib.request.urlopen(request, timeout=LONG) as answer:
        assert answer.status == 204
    event = source.next_event(LONG)
    assert (event.type, event.data) == ("order.updated", '{"id":42,"status":"shipped"}')
    source.close()


def test_the_bare_wsgi_application_serves_events(serve: Serve, tmp_path: Path, fresh_database_url: str) -> None:
    (tmp_path / "live.py").write_text(block("docs/wsgi.md", "# live.py"))
    server = serve("live:app", pythonpath=[tmp_path])
    source = EventSource(f"{server.url}/events")
    envelope = '{"channel": "orders", "tenant_id": "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11", "payload": 1}'
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute("SELECT pg_notify('pgfanout_events', %s)", (envelope,))
    assert source.next_event(LONG).data == "1"
    source.close()


def test_the_transaction_announces_at_commit(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_database_url)
    names: dict[str, object] = {"__name__": __name__}
    exec(block("README.md", "# shop.py"), names)
    hub = names["fanout"].hub  # type: ignore[attr-defined]
    with hub, psycopg.connect(fresh_database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int, status text)")
        connection.execute("INSERT INTO orders VALUES (42, 'new')")
        subscription = hub.subscribe("orders", names["TENANT"])
        code = block("README.md", "with psycopg.connect(url)")
        exec(code, {**names, "url": fresh_database_url, "psycopg": psycopg})
        event = subscription.get(LONG)
        assert event is not REFRESH_EVENT
        assert event.json() == {"id": 42}
        found = connection.execute("SELECT status FROM orders").fetchall()
    assert found == [("shipped",)]
    assert not [t for t in threading.enumerate() if t.name.startswith("pgfanout")]
