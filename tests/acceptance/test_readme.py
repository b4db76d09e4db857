"""The code of the README, the guide and docs/wsgi.md, run as it stands there."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path
from typing import Any

import flask
import psycopg
import pytest

from pgfanout import REFRESH_EVENT
from tests.support.browser import Tab, shows
from tests.support.gunicorn import GunicornServer
from tests.support.sse import EventSource

from .apps.names import ROOT, block
from .conftest import Serve, post

LONG = 20.0
TENANT = "north"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 700


@pytest.mark.parametrize("url", ["memory://", "PostgreSQL"])
def test_the_page_of_the_readme_moves(
    serve: Serve, tmp_path: Path, tab: Tab, fresh_database_url: str, url: str
) -> None:
    (tmp_path / "clicks.py").write_text(block("README.md", "# clicks.py"))
    env = {"PGFANOUT_URL": url if url == "memory://" else fresh_database_url}
    server = serve("clicks:app", env=env, pythonpath=[tmp_path])
    tab.open(server.url)
    shows(tab, "#clicks", "0")
    tab.run("document.querySelector('button').click()")
    shows(tab, "#clicks", "1")
    post(f"{server.url}/clicks")  # another page
    shows(tab, "#clicks", "2")
    assert tab.errors() == []


SECRET = "a key for this test"


@pytest.fixture
def shop(serve: Serve, tmp_path: Path) -> GunicornServer:
    (tmp_path / "shop.py").write_text(block("docs/guide.md", "# shop.py"))
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(block("docs/guide.md", "# gunicorn.conf.py"))
    return serve("shop:app", env={"SECRET_KEY": SECRET}, config=str(config), threads=None, pythonpath=[tmp_path])


def _signed_in() -> dict[str, str]:
    """The cookie that the shop gives a user of the tenant."""
    app = flask.Flask(__name__)
    app.secret_key = SECRET
    serializer = flask.sessions.SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return {"Cookie": f"session={serializer.dumps({'shop': TENANT, 'user': 7})}"}


def test_the_shop_of_the_guide_serves_its_users(shop: GunicornServer) -> None:
    source = EventSource(f"{shop.url}/events", headers=_signed_in())
    request = urllib.request.Request(f"{shop.url}/orders/42/ship", method="POST", headers=_signed_in())
    with urllib.request.urlopen(request, timeout=LONG) as answer:
        assert answer.status == 204
    event = source.next_event(LONG)
    assert (event.type, event.data) == ("order.updated", '{"id":42,"status":"shipped"}')
    source.close()


def test_the_shop_of_the_guide_refuses_strangers(shop: GunicornServer) -> None:
    source = EventSource(f"{shop.url}/events")
    assert source.status == 401
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


@pytest.fixture
def guide(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the guide's shop, whose database has an order."""
    monkeypatch.setenv("DATABASE_URL", fresh_database_url)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    with psycopg.connect(fresh_database_url) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, shop_id text, status text)")
        connection.execute("INSERT INTO orders VALUES (42, %s, 'new')", (TENANT,))
    names: dict[str, Any] = {"__name__": __name__}
    exec(block("docs/guide.md", "# shop.py"), names)
    return names


def test_the_transaction_of_the_guide_announces_at_commit(guide: dict[str, Any], fresh_database_url: str) -> None:
    with guide["fanout"].hub as hub:
        subscription = hub.subscribe("orders", TENANT)
        code = block("docs/guide.md", "with psycopg.connect(url)")
        exec(code, {**guide, "url": fresh_database_url, "psycopg": psycopg})
        _expect_shipped(subscription.get(LONG), fresh_database_url)
    assert not [t for t in threading.enumerate() if t.name.startswith("pgfanout")]


def test_the_session_of_the_guide_announces_at_commit(guide: dict[str, Any], fresh_database_url: str) -> None:
    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy import text

    app = guide["app"]
    app.config["SQLALCHEMY_DATABASE_URI"] = fresh_database_url.replace("postgresql://", "postgresql+psycopg://")
    db = SQLAlchemy(app)

    class Order(db.Model):  # type: ignore[name-defined, misc]
        __tablename__ = "orders"
        id = db.Column(db.Integer, primary_key=True)
        shop_id = db.Column(db.Text)
        status = db.Column(db.Text)

    with guide["fanout"].hub as hub, app.app_context():
        subscription = hub.subscribe("orders", TENANT)
        exec(block("docs/guide.md", "order.status ="), {**guide, "db": db, "order": db.session.get(Order, 42)})
        _expect_shipped(subscription.get(LONG), fresh_database_url)
        assert db.session.execute(text("SELECT 1")).scalar() == 1
        db.session.remove()
        db.engine.dispose()


def _expect_shipped(event: Any, url: str) -> None:
    assert event is not REFRESH_EVENT
    assert event.json() == {"id": 42}
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT status FROM orders").fetchall() == [("shipped",)]
