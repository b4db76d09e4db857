from django.db import transaction
from django.test import TestCase, TransactionTestCase

from pgfanout.django import close, get_hub, publish
from pgfanout.testing import capture, read_events

from .models import Order


class OrderTest(TestCase):
    """What a view publishes: nothing listens, and the test's transaction rolls back."""

    def test_an_order_is_published(self) -> None:
        with capture(get_hub()) as events:
            self.client.post("/shops/7/", {"title": "tea"})
        order = Order.objects.get()
        assert events == [("orders", "7", {"id": order.pk, "title": "tea"}, "order.made")]


class StreamTest(TransactionTestCase):
    """A stream gets what is committed. A TestCase never commits."""

    def tearDown(self) -> None:
        close()

    def test_the_shops_events_alone(self) -> None:
        response = self.client.get("/shops/7/events")
        publish("orders", 8, "of another shop")
        with transaction.atomic():
            publish("orders", 7, "rolled back")
            transaction.set_rollback(True)
        self.client.post("/shops/7/", {"title": "tea"})
        (event,) = read_events(response, 1)
        assert (event.type, event.json()["title"]) == ("order.made", "tea")
