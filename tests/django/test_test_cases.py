"""The classes of Django's own tests, and the hub in them."""

from __future__ import annotations

import itertools
import json

import pytest
from django.apps import apps
from django.db import connections, transaction
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase, override_settings

from pgfanout.django import close, cursor, get_hub, publish
from pgfanout.testing import capture, read_events
from tests.support.sse import EventSource

TENANT = "7d0e2b1c-0000-4000-8000-000000000001"


@pytest.mark.usefixtures("database")
class TestTestCase(TestCase):
    """Django's TestCase never commits: what is published in it stays in its transaction."""

    def test_publish(self) -> None:
        with get_hub().subscribe("orders", TENANT) as subscription:
            publish("orders", TENANT, 1)
            other = connections.create_connection("default")
            publish("orders", TENANT, 2, executor=other)
            other.close()
            assert subscription.get(timeout=20.0).json() == 2

    def test_a_stream_leaves_the_transaction_alone(self) -> None:
        orders = apps.get_model("project", "Order").objects
        for read in (0, 1):
            made = orders.create(shop=1, title="in the transaction")
            response = self.client.get("/events")
            for item in itertools.islice(response.streaming_content, read):
                assert item.startswith(b": open\n")
            response.close()
            assert orders.filter(pk=made.pk).exists()

    def test_what_was_published_can_be_read_though_nothing_is_committed(self) -> None:
        with capture(get_hub()) as events:
            self.client.get("/order?title=tea")
        assert [event.payload for event in events][1:] == ["of the savepoint"]
        assert events[0].payload["title"] == "tea"

    def test_in_memory_events_come_with_the_callbacks_of_the_commit(self) -> None:
        with override_settings(PGFANOUT={"URL": "memory://"}), capture(get_hub()) as events:
            with self.captureOnCommitCallbacks(execute=True):
                self.client.get("/order?title=tea")
                assert events == []
            assert [event.payload["title"] for event in events] == ["tea"]

    def test_a_stream_that_is_read_for_events_leaves_the_transaction_alone(self) -> None:
        response = self.client.get("/events")
        with pytest.raises(TimeoutError):
            read_events(response, timeout=0.1)
        assert not apps.get_model("project", "Order").objects.exists()


class TestSimpleTestCase(SimpleTestCase):
    """It has no test database, so the settings name the project's own one, which a hub must not listen at."""

    def test_a_hub_needs_a_database(self) -> None:
        for ask in (get_hub, cursor):
            with pytest.raises(AssertionError, match="not allowed in SimpleTestCase"):
                ask()

    def test_a_memory_hub_needs_none(self) -> None:
        with override_settings(PGFANOUT={"URL": "memory://"}):
            with get_hub().subscribe("orders", TENANT) as subscription:
                get_hub().publish("orders", TENANT, 1)
                assert subscription.get(timeout=20.0).json() == 1


@pytest.mark.usefixtures("database")
class TestTransactionTestCase(TransactionTestCase):
    def test_a_stream_has_what_is_committed(self) -> None:
        response = self.client.get("/events")
        with transaction.atomic():
            publish("orders", TENANT, "rolled back")
            transaction.set_rollback(True)
        self.client.get("/order?title=tea")
        (event,) = read_events(response, timeout=20.0)
        assert event.json()["title"] == "tea"


@pytest.mark.usefixtures("database")
class TestLiveServerTestCase(LiveServerTestCase):
    def test_a_stream_of_the_live_server_has_what_is_committed(self) -> None:
        with EventSource(f"{self.live_server_url}/events") as source:
            source.wait_for(lambda source: source.comments)
            self.client.get("/order?title=tea")
            assert json.loads(source.next_event().data)["title"] == "tea"
            close()
            assert source.wait_end()
