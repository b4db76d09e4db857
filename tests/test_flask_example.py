"""The order board's routes: what they answer, and what the table's trigger publishes."""

from __future__ import annotations

import json
import random
import re
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_example import create_app
from flask_example.orders import BURST, STATUSES, Order, Orders
from flask_example.routes import fanout
from flask_example.tenants import TENANTS
from pgfanout import Event, NotifyHub, Subscription

from .support.wait import eventually

# Private members: the pool's time-out is shortened.

CAFE = TENANTS[0].id


@pytest.fixture(scope="module")
def app(database_url: str) -> Iterator[Flask]:
    app = create_app(database_url)
    _orders(app).prepare()
    yield app
    _orders(app).close()
    _hub(app).close()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody else's, as psql would have it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def tenant() -> str:
    return f"shop {uuid.uuid4().hex}"


@pytest.fixture
def subscription(app: Flask, tenant: str) -> Iterator[Subscription]:
    with _hub(app).subscribe("orders", tenant) as subscription:
        yield subscription


def _orders(app: Flask) -> Orders:
    orders = app.extensions["orders"]
    assert isinstance(orders, Orders)
    return orders


def _hub(app: Flask) -> NotifyHub:
    with app.app_context():
        return fanout.hub


def _created(client: FlaskClient, tenant: str | int, title: str = "Flat white") -> dict[str, Any]:
    response = client.post("/orders", json={"tenant": tenant, "title": title})
    assert response.status_code == 201, response.text
    order: dict[str, Any] = response.get_json()
    return order


def _listed(client: FlaskClient, tenant: str) -> list[dict[str, Any]]:
    orders: list[dict[str, Any]] = client.get("/orders", query_string={"tenant": tenant}).get_json()["orders"]
    return orders


def _cursor(client: FlaskClient) -> str:
    [cursor] = re.findall('data-cursor="([0-9]*)"', client.get("/").text)
    return str(cursor)


def _refused(response: TestResponse, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    assert response.mimetype == "application/json"
    assert reason in response.get_json()["error"]


# What it answers.


def test_the_page_has_every_tenant_and_every_column(client: FlaskClient) -> None:
    page = client.get("/").text
    assert [page.count(f'data-tenant="{tenant.id}"') for tenant in TENANTS] == [1, 1]
    assert [page.count(f'data-status="{status}"') for status in STATUSES] == [2, 2, 2, 2]


def test_the_page_comes_with_its_orders(client: FlaskClient) -> None:
    _created(client, CAFE, "</script><script>alert(1)</script> <!-- '\"&")
    blocks = re.findall('<script type="application/json" class="orders">(.*?)</script>', client.get("/").text)
    assert [json.loads(block) for block in blocks] == [_listed(client, tenant.id) for tenant in TENANTS]


def test_the_page_s_cursor_is_older_than_its_orders(
    client: FlaskClient, app: Flask, tenant: str, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []

    def all_and_a_change_that_comes_too_late(self: Orders, shop: str) -> list[Order]:
        orders = read(self, shop)
        self.create(tenant, "Flat white")
        events.append(_next(subscription))
        return orders

    read = Orders.all
    monkeypatch.setattr(Orders, "all", all_and_a_change_that_comes_too_late)
    cursor = _cursor(client)
    assert 0 < int(cursor) < int(events[0].id) < int(events[1].id)


def test_the_page_loads_nothing_from_elsewhere(client: FlaskClient) -> None:
    response = client.get("/")
    assert response.headers["Content-Security-Policy"] == "default-src 'self'; img-src 'self' data:"
    assert 'src="http' not in response.text
    assert 'href="http' not in response.text


@pytest.mark.parametrize("path", ["/static/board.js", "/_pgfanout/pgfanout.js", "/static/board.css"])
def test_the_page_s_files_are_served(client: FlaskClient, path: str) -> None:
    with client.get(path) as response:
        assert response.status_code == 200


def test_an_empty_table_is_seeded_for_the_page_s_tenants(client: FlaskClient) -> None:
    assert {order["status"] for order in _listed(client, CAFE)} == set(STATUSES)


def test_a_new_order_is_answered_and_listed(client: FlaskClient, tenant: str) -> None:
    order = _created(client, tenant)
    assert order.keys() == {"id", "title", "status", "updated_at"}
    assert (order["title"], order["status"]) == ("Flat white", "new")
    assert _listed(client, tenant) == [order]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  Flat \n\t white ", "Flat white"),
        ("x" * 80, "x" * 80),
        ("Käse 🧑‍🍳 <b>'; --", "Käse 🧑‍🍳 <b>'; --"),
    ],
)
def test_a_title_is_one_line_and_otherwise_kept(client: FlaskClient, tenant: str, given: str, kept: str) -> None:
    assert _created(client, tenant, given)["title"] == kept


def test_a_move_is_answered_with_what_it_has_made(client: FlaskClient, tenant: str) -> None:
    order = _created(client, tenant)
    times = [order["updated_at"]]
    for status in ["preparing", "ready", "delivered", "new"]:
        response = client.post(f"/orders/{order['id']}", json={"status": status})
        assert response.status_code == 200
        moved = response.get_json()
        assert (moved["id"], moved["title"], moved["status"]) == (order["id"], order["title"], status)
        times.append(moved["updated_at"])
    assert len(set(times)) == 5
    assert _listed(client, tenant) == [moved]


def test_a_tenant_s_orders_are_its_own(client: FlaskClient, tenant: str) -> None:
    _created(client, tenant)
    assert _listed(client, str(uuid.uuid4())) == []


def test_a_tenant_may_be_a_number(client: FlaskClient) -> None:
    number = random.randrange(10**15)
    order = _created(client, number)
    assert _listed(client, str(number)) == [order]


def test_health_tells_whether_the_hub_listens(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.get_json()["listening"] is True


def test_the_status_tells_of_streams_and_threads(client: FlaskClient) -> None:
    def told() -> dict[str, int]:
        with client.get("/status") as response:
            status: dict[str, int] = response.get_json()
        return status

    before = told()  # a test client that does not close its responses keeps them
    with client.get("/events", query_string={"tenant": CAFE}):
        assert told() == {**before, "streams": before["streams"] + 1, "busy": before["busy"] + 1}
    assert told() == before


def test_without_a_database_it_says_so_and_is_unhealthy() -> None:
    app = create_app("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1")
    _orders(app)._pool.timeout = 0.2
    try:
        client = app.test_client()
        assert client.get("/healthz").status_code == 503
        for path in ("/", "/orders", "/events"):
            _refused(client.get(path, query_string={"tenant": CAFE}), 503, "database does not answer")
    finally:
        _orders(app).close()
        _hub(app).close()


def test_workers_that_start_at_once_make_one_table(fresh_database_url: str) -> None:
    apps = [create_app(fresh_database_url) for _ in range(4)]
    counts: list[int] = []

    def ask(app: Flask) -> None:
        counts.append(len(_listed(app.test_client(), CAFE)))

    threads = [threading.Thread(target=ask, args=(app,)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for app in apps:
        _orders(app).close()
        _hub(app).close()
    assert counts == [8, 8, 8, 8]
    with psycopg.connect(fresh_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pgfanout.event").fetchone() == (8 + 8,)


@pytest.mark.parametrize("path", ["/", "/events", "/healthz", "/orders", "/status"])
def test_whichever_request_is_the_first_prepares_the_database(fresh_database_url: str, path: str) -> None:
    app = create_app(fresh_database_url)
    try:
        with app.test_client().get(path, query_string={"tenant": CAFE}) as response:
            # The health check does not wait for the hub, which it starts.
            assert response.status_code in ((200, 503) if path == "/healthz" else (200,))
        _created(app.test_client(), CAFE)
        with psycopg.connect(fresh_database_url) as connection:
            assert connection.execute("SELECT count(*) FROM pgfanout.event").fetchone() == (8 + 8 + 1,)
    finally:
        _orders(app).close()
        _hub(app).close()


def test_a_table_that_is_there_is_kept_and_gets_its_triggers(fresh_database_url: str) -> None:
    first, second = create_app(fresh_database_url), create_app(fresh_database_url)
    try:
        order = _created(first.test_client(), CAFE)
        with psycopg.connect(fresh_database_url) as connection:
            connection.execute("DROP SCHEMA pgfanout CASCADE")
            connection.execute("DROP TRIGGER updated_at ON board_orders")
        assert order in _listed(second.test_client(), CAFE)
        with _hub(second).subscribe("orders", CAFE) as subscription:
            moved = second.test_client().post(f"/orders/{order['id']}", json={"status": "ready"}).get_json()
            assert _change(_next(subscription)) == ("update", moved)
        assert moved["updated_at"] != order["updated_at"]
    finally:
        for app in (first, second):
            _orders(app).close()
            _hub(app).close()


# What it refuses.


@pytest.mark.parametrize("route", ["/orders", "/events"])
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "tenant is missing"),
        ({"tenant": ""}, "tenant is missing"),
        ({"tenant": "\x00"}, "invalid tenant: it has to be"),
        ({"tenant": "x" * 64}, "text of 1 to 63 bytes"),
    ],
)
def test_a_query_without_a_proper_tenant(client: FlaskClient, route: str, query: dict[str, str], reason: str) -> None:
    _refused(client.get(route, query_string=query), 400, reason)


@pytest.mark.parametrize("route", ["/orders", "/orders/1", "/demo/burst", "/demo/cut"])
@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b"tenant=x", "application/x-www-form-urlencoded", 400, "not a JSON object"),
        (b"", "application/json", 400, "not a JSON object"),
        (b"{", "application/json", 400, "not a JSON object"),
        (b"\xff", "application/json", 400, "not a JSON object"),
        (b"[]", "application/json", 400, "not a JSON object"),
        (b"null", "application/json", 400, "not a JSON object"),
        (b"[" * 16_000, "application/json", 400, "not a JSON object"),
        (b'"' + b"x" * 20_000 + b'"', "application/json", 413, "exceeds the capacity limit"),
    ],
)
def test_a_body_that_is_no_json_object(
    client: FlaskClient, route: str, body: bytes, content_type: str, status: int, reason: str
) -> None:
    _refused(client.post(route, data=body, content_type=content_type), status, reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"title": "x"}, "tenant is missing"),
        ({"tenant": None, "title": "x"}, "tenant is missing"),
        ({"tenant": 7.5, "title": "x"}, "invalid tenant: it has to be a UUID, an int, text"),
        ({"tenant": [], "title": "x"}, "or None, not list"),
        ({"tenant": "x" * 500, "title": "x"}, "text of 1 to 63 bytes"),
        ({"tenant": CAFE}, "title is missing"),
        ({"tenant": CAFE, "title": None}, "title is missing"),
        ({"tenant": CAFE, "title": 7}, "title has to be a string, not 7"),
        ({"tenant": CAFE, "title": ["x"]}, "title has to be a string, not ['x']"),
        ({"tenant": CAFE, "title": ""}, "title is empty"),
        ({"tenant": CAFE, "title": " \n "}, "title is empty"),
        ({"tenant": CAFE, "title": "x" * 81}, "title has 81 characters, the limit is 80"),
        ({"tenant": CAFE, "title": "a\x00b"}, "title has a control character"),
        ({"tenant": CAFE, "title": "a\x1bb"}, "title has a control character"),
        ({"tenant": CAFE, "title": "a\ud800b"}, "title has a control character"),
    ],
)
def test_an_order_that_can_t_be_made(client: FlaskClient, body: dict[str, Any], reason: str) -> None:
    before = _listed(client, CAFE)
    _refused(client.post("/orders", json=body), 400, reason)
    assert _listed(client, CAFE) == before


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "status is missing"),
        ({"status": None}, "status is missing"),
        ({"status": "lost"}, "status has to be one of new, preparing, ready, delivered, not 'lost'"),
        ({"status": ""}, "status has to be one of"),
        ({"status": "New"}, "status has to be one of"),
        ({"status": ["new"]}, "status has to be one of"),
        ({"status": {}}, "status has to be one of"),
    ],
)
def test_a_move_that_can_t_be_made(client: FlaskClient, tenant: str, body: dict[str, Any], reason: str) -> None:
    order = _created(client, tenant)
    _refused(client.post(f"/orders/{order['id']}", json=body), 400, reason)
    assert _listed(client, tenant) == [order]


@pytest.mark.parametrize("id", ["0", "999999999", "9223372036854775808", "9" * 60])
def test_an_order_that_does_not_exist(client: FlaskClient, id: str) -> None:
    _refused(client.post(f"/orders/{id}", json={"status": "new"}), 404, f"there is no order {id}")


@pytest.mark.parametrize("path", ["/nothing", "/orders/x", "/orders/-1", "/static/nothing"])
def test_a_path_that_does_not_exist(client: FlaskClient, path: str) -> None:
    _refused(client.post(path, json={"status": "new"}) if "orders" in path else client.get(path), 404, "")


@pytest.mark.parametrize(("method", "path"), [("GET", "/demo/cut"), ("GET", "/orders/1"), ("PUT", "/orders")])
def test_a_method_that_does_not_exist(client: FlaskClient, method: str, path: str) -> None:
    _refused(client.open(path, method=method), 405, "not allowed")


# What is published.


def _next(subscription: Subscription) -> Event:
    return subscription.get(timeout=5.0)


def _change(event: Event) -> tuple[str, dict[str, Any]]:
    row: dict[str, Any] = event.json()["row"]
    return event.type, row


def test_each_change_is_published_as_it_was_answered(
    client: FlaskClient, tenant: str, subscription: Subscription
) -> None:
    order = _created(client, tenant)
    assert _change(_next(subscription)) == ("insert", order)
    moved = client.post(f"/orders/{order['id']}", json={"status": "ready"}).get_json()
    assert _change(_next(subscription)) == ("update", moved)


def test_changes_by_others_are_published_and_dated_as_well(
    client: FlaskClient, tenant: str, subscription: Subscription, connection: psycopg.Connection
) -> None:
    connection.execute("INSERT INTO board_orders (tenant, title) VALUES (%s, 'By hand')", (tenant,))
    type, inserted = _change(_next(subscription))
    assert (type, inserted["title"], inserted["status"]) == ("insert", "By hand", "new")
    connection.execute("UPDATE board_orders SET status = 'ready' WHERE id = %s", (inserted["id"],))
    type, updated = _change(_next(subscription))
    assert (type, updated["status"]) == ("update", "ready")
    assert updated["updated_at"] != inserted["updated_at"]
    assert _listed(client, tenant) == [updated]
    connection.execute("DELETE FROM board_orders WHERE id = %s", (inserted["id"],))
    assert _change(_next(subscription)) == ("delete", updated)


def test_an_update_that_changes_nothing_is_no_event(
    client: FlaskClient, tenant: str, subscription: Subscription, connection: psycopg.Connection
) -> None:
    order = _created(client, tenant)
    assert _change(_next(subscription)) == ("insert", order)
    connection.execute("UPDATE board_orders SET status = status WHERE id = %s", (order["id"],))
    assert _listed(client, tenant) == [order]
    other = _created(client, tenant)
    assert _change(_next(subscription)) == ("insert", other)


def test_an_order_that_goes_to_another_tenant_leaves_the_one_and_enters_the_other(
    client: FlaskClient, app: Flask, tenant: str, subscription: Subscription, connection: psycopg.Connection
) -> None:
    order, other = _created(client, tenant), str(uuid.uuid4())
    assert _next(subscription).type == "insert"
    with _hub(app).subscribe("orders", other) as theirs:
        connection.execute("UPDATE board_orders SET tenant = %s WHERE id = %s", (other, order["id"]))
        assert (_next(subscription).type, _next(theirs).type) == ("delete", "insert")
    assert (_listed(client, tenant), len(_listed(client, other))) == ([], 1)


def test_a_change_is_not_published_to_another_tenant(
    client: FlaskClient, tenant: str, subscription: Subscription
) -> None:
    _created(client, str(uuid.uuid4()), "theirs")
    ours = _created(client, tenant, "ours")
    assert _change(_next(subscription)) == ("insert", ours)


def test_a_stream_carries_the_tenant_s_orders(client: FlaskClient, tenant: str) -> None:
    with client.get("/events", query_string={"tenant": tenant}, buffered=False) as response:
        assert (response.status_code, response.mimetype) == (200, "text/event-stream")
        chunks = iter(response.iter_encoded())
        next(chunks)
        order = _created(client, tenant)
        frame = next(chunks).decode()
    assert "event: insert" in frame
    assert f'"id":{order["id"]}' in frame.replace(" ", "")


def test_a_stream_goes_on_from_where_the_page_was_rendered(client: FlaskClient, tenant: str) -> None:
    cursor = _cursor(client)
    order = _created(client, tenant)
    query = {"tenant": tenant, "last_event_id": cursor}
    with client.get("/events", query_string=query, buffered=False) as response:
        chunks = response.iter_encoded()
        frames = next(frame for frame in map(bytes.decode, chunks) if "event: insert" in frame)
    assert "event: insert" in frames
    assert f'"id":{order["id"]}' in frames


def test_each_change_of_a_burst_arrives(client: FlaskClient, tenant: str, subscription: Subscription) -> None:
    response = client.post("/demo/burst", json={"tenant": tenant})
    assert (response.status_code, response.get_json()) == (200, {"changes": BURST})
    changes = [_change(_next(subscription)) for _ in range(BURST)]
    assert [type for type, _ in changes] == ["insert"] * 12 + ["update"] * (BURST - 12)
    assert {row["id"]: row for _, row in changes} == {order["id"]: order for order in _listed(client, tenant)}


def test_bursts_of_one_tenant_at_once_wait_for_each_other(
    client: FlaskClient, app: Flask, tenant: str, subscription: Subscription
) -> None:
    answers: list[int] = []

    def burst() -> None:
        answers.append(app.test_client().post("/demo/burst", json={"tenant": tenant}).status_code)

    burst()
    threads = [threading.Thread(target=burst) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    rows = [_change(_next(subscription))[1] for _ in range(4 * BURST)]
    assert {row["id"]: row for row in rows} == {order["id"]: order for order in _listed(client, tenant)}


def test_a_full_board_makes_room_and_says_which_order_went(
    client: FlaskClient, tenant: str, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_example.orders._KEPT", 2)
    first, second = _created(client, tenant), _created(client, tenant)
    client.post(f"/orders/{second['id']}", json={"status": "delivered"})
    third = _created(client, tenant)
    assert [order["id"] for order in _listed(client, tenant)] == [first["id"], third["id"]]
    changes = [_change(_next(subscription)) for _ in range(5)]
    assert [(type, row["id"]) for type, row in changes] == [
        ("insert", first["id"]),
        ("insert", second["id"]),
        ("update", second["id"]),
        ("insert", third["id"]),
        ("delete", second["id"]),
    ]


def test_a_cut_loses_nothing(client: FlaskClient, app: Flask, tenant: str, subscription: Subscription) -> None:
    before = _hub(app).stats()
    response = client.post("/demo/cut", json={})
    assert response.status_code == 200
    assert response.get_json()["cut"] >= 1
    orders = [_created(client, tenant) for _ in range(3)]
    assert [_change(_next(subscription)) for _ in orders] == [("insert", order) for order in orders]
    eventually(lambda: _hub(app).stats().reconnects > before.reconnects)
    assert _hub(app).stats().gaps == before.gaps
