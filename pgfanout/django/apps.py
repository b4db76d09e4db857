"""PgFanoutConfig: the app for INSTALLED_APPS."""

from __future__ import annotations

import contextlib
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.signals import connection_created

from ..errors import PgFanoutError
from .checks import check_middleware, check_server, check_settings
from .database import remember_name
from .live import close, current
from .views import client, healthz

__all__ = ["PgFanoutConfig"]


class PgFanoutConfig(AppConfig):
    """Makes the hub, which connects to nothing, registers the system checks, and prepares the views."""

    name = "pgfanout.django"
    label = "pgfanout"
    verbose_name = "pgfanout"

    def ready(self) -> None:
        for check in (check_settings, check_server, check_middleware):
            checks.register(check)
        connection_created.connect(_make_way, dispatch_uid="pgfanout")
        for name in connections:  # with ATOMIC_REQUESTS a probe would fail while the database is away
            for view in (client, healthz):
                transaction.non_atomic_requests(name)(view)
        # gunicorn's hook starts the hubs that are there when the worker has loaded the application. What is wrong with
        # the settings is for the checks to say: commands such as `manage.py check` have to work.
        with contextlib.suppress(PgFanoutError, ValueError, ImproperlyConfigured):
            remember_name()
            current.endpoint()


def _make_way(connection: Any, **_: object) -> None:
    """Close the hub before Django creates, clones or drops a test database, which needs a database without sessions.

    Django opens a connection of this alias for that alone.
    """
    if connection.alias == NO_DB_ALIAS:
        close()
