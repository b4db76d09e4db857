"""A process in which Django's connections and cursors are executors.

    python -m tests.support.django_executors URL SCENARIO

It prints as JSON what the scenario returns, mostly what has arrived.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import DatabaseError, connection, connections, transaction

from pgfanout import PostgresHub, Subscription

TENANT = "11111111-1111-4111-8111-111111111111"
ODD = "naïve żółć 日本 🎉 \\ 'quoted' \"%s\" %(x)s {} \\x41"


def configure(url: str) -> None:
    parts = urlsplit(url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.hostname,
        "PORT": parts.port,
    }
    databases = {
        "default": database,
        "binding": {**database, "OPTIONS": {"server_side_binding": True}},
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    }
    settings.configure(DATABASES=databases)
    django.setup()


class Scenarios:
    def __init__(self, hub: PostgresHub, url: str) -> None:
        self.hub = hub
        self.url = url
        self.subscription: Subscription = hub.subscribe("orders", TENANT)

    def publish(self, payload: Any, executor: Any = connection) -> None:
        self.hub.publish("orders", TENANT, payload, executor=executor)

    def arrived(self) -> list[Any]:
        self.hub.publish("orders", TENANT, "last")
        arrived = []
        while (payload := self.subscription.get(20.0).json()) != "last":
            arrived.append(payload)
        return arrived

    def before_its_first_query(self) -> Any:
        self.publish("proxy")
        connection.close()
        self.publish("wrapper", connections["default"])
        return self.arrived()

    def in_a_transaction(self) -> Any:
        with transaction.atomic():
            self.publish(ODD)
            self.hub.publish_many([("orders", TENANT, 2), ("orders", TENANT, 3, "made")], executor=connection)
            before = self.arrived()
        return [before, self.arrived()]

    def rolled_back(self) -> Any:
        with transaction.atomic():
            self.publish(1)
            transaction.set_rollback(True)
        return self.arrived()

    def savepoints(self) -> Any:
        with transaction.atomic():
            self.publish(1)
            with transaction.atomic():
                self.publish(2)
                with transaction.atomic():
                    self.publish(3)
                transaction.set_rollback(True)
            with transaction.atomic():
                self.publish(4)
        return self.arrived()

    def cursors(self) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 7")
            self.publish("cursor", cursor)
            rows = list(cursor.fetchone())  # a publish leaves the caller's result alone
        connection.force_debug_cursor = True
        with connection.cursor() as cursor:
            self.publish("debug", cursor)
        connection.force_debug_cursor = False
        return [*self.arrived(), rows]

    def broken_transaction(self) -> Any:
        name = ""
        with transaction.atomic():
            transaction.set_rollback(True)
            try:
                self.publish(1)
            except transaction.TransactionManagementError as error:
                name = type(error).__name__
        assert self.arrived() == []
        return name

    def another_thread(self) -> Any:
        names: list[str] = []
        wrapper = connections["default"]
        wrapper.ensure_connection()

        def publish() -> None:
            try:
                self.publish(1, wrapper)
            except DatabaseError as error:
                names.append(type(error).__name__)

        thread = threading.Thread(target=publish)
        thread.start()
        thread.join()
        assert self.arrived() == []
        return names[0]

    def another_database(self) -> Any:
        try:
            self.publish(1, connections["other"])
        except TypeError as error:
            return str(error)

    def counted_query(self) -> Any:
        from django.test.utils import CaptureQueriesContext

        with CaptureQueriesContext(connection) as queries:
            self.publish("counted")
        return [len(queries), self.arrived()]

    def server_side_binding(self) -> Any:
        binding = connections["binding"]
        with transaction.atomic(using="binding"):
            self.publish(ODD, binding)
            self.hub.publish_many([("orders", TENANT, ODD), ("orders", TENANT, ODD)], executor=binding)
        return self.arrived()

    def cursor_of_history(self) -> Any:
        with PostgresHub(self.url, history=True) as hub:
            hub.install_history()
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                before = hub.cursor(executor=connection)
                hub.publish("orders", TENANT, 1)
                kept = hub.cursor(executor=cursor) == before
            return [kept, hub.cursor(executor=connection) != before]

    def cache(self) -> Any:
        from django.core.cache import cache

        try:
            self.publish(1, cache)
        except TypeError as error:
            return type(error).__name__


def main(url: str, scenario: str) -> None:
    configure(url)
    with PostgresHub(url) as hub:
        run: Callable[[], Any] = getattr(Scenarios(hub, url), scenario)
        sys.stdout.write(json.dumps(run()))
    connections.close_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
