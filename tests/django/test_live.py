"""stream and publish in a Django project, and the hub that they share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, InternalError, connection, connections, transaction
from django.test import RequestFactory, override_settings
from django.utils.translation import gettext_lazy
from psycopg import IsolationLevel

from pgfanout import HubConfigurationError, InvalidEventError, MemoryHub, PostgresHub, Subscription
from pgfanout.django import close, cursor, get_hub, publish, publish_many, stream
from tests.support.wait import eventually

TENANT = "7d0e2b1c-0000-4000-8000-000000000001"


@pytest.fixture
def orders(database: None) -> Iterator[Subscription]:
    """What is published about orders."""
    with get_hub().subscribe("orders", TENANT) as subscription:
        yield subscription


def payloads(subscription: Subscription) -> list[Any]:
    """What was published since the last call."""
    publish("orders", TENANT, "end")
    found = []
    while (event := subscription.get(timeout=20.0).json()) != "end":
        found.append(event)
    return found


def sessions() -> int:
    """The hub's sessions in the test database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'pgfanout%%'"
        )
        (count,) = cursor.fetchone()
    return int(count)


class TestPublish:
    def test_outside_a_transaction_an_event_is_delivered_at_once(self, orders: Subscription) -> None:
        publish("orders", TENANT, {"id": 1}, type="made")
        event = orders.get(timeout=20.0)
        assert (event.json(), event.type) == ({"id": 1}, "made")

    def test_in_a_transaction_it_is_delivered_with_the_commit(self, orders: Subscription) -> None:
        with transaction.atomic():
            publish("orders", TENANT, 1)
            publish_many([("orders", TENANT, 2), ("orders", TENANT, 3)])
        assert payloads(orders) == [1, 2, 3]

    def test_what_is_rolled_back_is_not_delivered(self, orders: Subscription) -> None:
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            publish("orders", TENANT, 1)
            raise ZeroDivisionError
        with transaction.atomic():
            publish("orders", TENANT, 2)
            transaction.set_rollback(True)
        assert payloads(orders) == []

    def test_a_savepoint_that_is_rolled_back_takes_its_events_along(self, orders: Subscription) -> None:
        with transaction.atomic():
            publish("orders", TENANT, "before")
            with transaction.atomic():
                publish("orders", TENANT, "lost")
                transaction.set_rollback(True)
            publish("orders", TENANT, "after")
        assert payloads(orders) == ["before", "after"]

    def test_payloads_are_what_djangos_json_takes(self, orders: Subscription) -> None:
        publish("orders", TENANT, {"at": date(2026, 11, 30), "price": Decimal("1.50"), "title": gettext_lazy("tea")})
        assert orders.get(timeout=20.0).json() == {"at": "2026-11-30", "price": "1.50", "title": "tea"}
        with pytest.raises(InvalidEventError, match="object"):
            publish("orders", TENANT, object())

    def test_another_executor_has_its_own_transaction(self, orders: Subscription) -> None:
        other = connections.create_connection("default")
        try:
            with transaction.atomic():
                publish("orders", TENANT, "lost")
                publish("orders", TENANT, "kept", executor=other)
                transaction.set_rollback(True)
        finally:
            other.close()
        assert payloads(orders) == ["kept"]

    def test_a_transaction_that_has_failed_publishes_nothing_more(self, orders: Subscription) -> None:
        with transaction.atomic():
            with pytest.raises(DatabaseError), connection.cursor() as statement:
                statement.execute("SELECT no_such_column")
            with pytest.raises(InternalError):
                publish("orders", TENANT, 1)
            transaction.set_rollback(True)
        assert payloads(orders) == []

    def test_no_listener_is_started(self, database: None) -> None:
        publish("orders", TENANT, 1)
        assert not get_hub().has_listened


class TestHub:
    def test_its_database_is_the_test_database(self, orders: Subscription) -> None:
        assert connection.settings_dict["NAME"].startswith("test_")
        eventually(lambda: sessions() == 1)  # another session proves for a moment that this one hears

    def test_it_stays_the_same_while_nothing_changes(self, database: None) -> None:
        assert get_hub() is get_hub()

    def test_another_name_of_the_database_makes_another_hub(
        self, orders: Subscription, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = get_hub()
        monkeypatch.setitem(connection.settings_dict, "NAME", fresh_database_url.rpartition("/")[2])
        assert get_hub() is not hub
        assert hub.closed
        get_hub().start()

    def test_a_url_for_the_listener_has_the_test_database_as_well(
        self, database: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = connection.settings_dict
        url = f"postgresql://postgres@{settings['HOST']}:{settings['PORT']}/development"
        with override_settings(PGFANOUT={"URL": url}):
            get_hub().start()
            eventually(lambda: sessions() == 1)

    def test_other_settings_make_another_hub(self, project: None) -> None:
        with override_settings(PGFANOUT={"URL": "memory://"}):
            hub = get_hub()
            assert isinstance(hub, MemoryHub)
            with hub.subscribe("orders", TENANT) as subscription:
                publish("orders", TENANT, 1)
                assert subscription.get(timeout=20.0).json() == 1
        assert get_hub() is not hub
        assert hub.closed

    def test_a_closed_one_is_replaced(self, orders: Subscription) -> None:
        hub = get_hub()
        close()
        assert hub.closed
        eventually(lambda: sessions() == 0)
        assert not get_hub().closed

    def test_a_hub_that_its_server_has_closed_is_not_replaced(self, project: None) -> None:
        get_hub().close()
        assert get_hub().closed


class TestStream:
    def test_it_ends_with_the_hub(self, database: None) -> None:
        response = stream(RequestFactory().get("/events"), ["orders", "stock"], TENANT)
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        publish("stock", TENANT, 7)
        body = iter(response)
        assert next(body).startswith(b": open\n")
        assert b"data: 7\n" in next(body)
        close()
        assert b"event: close\n" in b"".join(body)
        response.close()

    def test_as_text_after_a_refresh(self, database: None) -> None:
        response = stream(RequestFactory().get("/events"), "orders", TENANT, data="text", refresh_first=True)
        publish("orders", TENANT, "<li>tea</li>")
        body = iter(response)
        assert b"event: refresh\n" in next(body)
        assert b"data: <li>tea</li>\n" in next(body)
        response.close()

    def test_functions_are_called_when_it_has_ended(self, database: None) -> None:
        called: list[str] = []
        response = stream(RequestFactory().get("/events"), "orders", TENANT)
        response.call_on_close(lambda: called.append("ended"))
        next(iter(response))
        assert called == []
        response.close()
        assert called == ["ended"]

    def test_a_refusal_asks_browsers_to_retry(self, project: None) -> None:
        with override_settings(PGFANOUT={"URL": "memory://", "MAX_STREAMS": 0}):
            response = stream(RequestFactory().get("/events", HTTP_ACCEPT="text/event-stream"), "orders", TENANT)
            assert response.status_code == 200
            assert response.content.startswith(b"retry: ")
            page = stream(RequestFactory().get("/events", HTTP_ACCEPT="text/html"), "orders", TENANT)
            assert (page.status_code, page.reason_phrase) == (503, "Service Unavailable")
            assert page.has_header("Retry-After")

    def test_under_asgi_it_says_what_to_do(self, project: None) -> None:
        request = ASGIRequest({"type": "http", "method": "GET", "path": "/", "headers": []}, None)
        with pytest.raises(HubConfigurationError, match="streams need WSGI"):
            stream(request, "orders", TENANT)


class TestCursor:
    def test_without_history_it_is_empty(self, database: None) -> None:
        assert cursor() == ""

    def test_with_history_it_is_where_the_log_ends(self, database: None) -> None:
        with override_settings(PGFANOUT={"HISTORY": True}):
            hub = get_hub()
            assert isinstance(hub, PostgresHub)
            hub.install_history()
            before = cursor()
            publish("orders", TENANT, 1)
            with get_hub().subscribe("orders", TENANT, after=before) as subscription:
                assert subscription.get(timeout=20.0).json() == 1
            assert cursor(executor=connection) > before

    def test_in_a_transaction_with_one_snapshot_it_is_where_that_ends(
        self, database: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"isolation_level": IsolationLevel.REPEATABLE_READ})
        connection.close()
        with (
            override_settings(PGFANOUT={"HISTORY": True}),
            contextlib.closing(connections.create_connection("default")) as other,
            contextlib.closing(connection),
        ):
            hub = get_hub()
            assert isinstance(hub, PostgresHub)
            hub.install_history()
            with hub.subscribe("orders", TENANT) as subscription, transaction.atomic():
                sessions()  # the first query, and so the snapshot
                publish("orders", TENANT, 1, executor=other)
                assert subscription.get(timeout=20.0).json() == 1
                rendered = cursor()
            with hub.subscribe("orders", TENANT, after=rendered) as subscription:
                assert subscription.get(timeout=20.0).json() == 1
