"""System checks: what in a project's settings keeps streams from working."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from ..backends.postgres import PostgresHub
from ..errors import PgFanoutError
from ..settings import DEFAULTS
from .database import alias, given_settings, setting_name
from .live import current

__all__ = ["check_middleware", "check_server", "check_settings"]

_KNOWN: Final = {*DEFAULTS, "USING"} - {"DATABASE_URL"}


def check_settings(app_configs: object, **_: object) -> Sequence[CheckMessage]:
    """Errors for settings that are unknown or make no hub, and warnings for a database that can't listen or publish."""
    try:
        hub = current.endpoint().hub
        unknown = sorted(set(given_settings()) - _KNOWN)
        connection = connections[alias()]
    except (PgFanoutError, ValueError, ImproperlyConfigured) as error:
        return [Error(f"pgfanout has no hub: {error}", id="pgfanout.E001")]
    found: list[CheckMessage] = [
        Error(f"PGFANOUT has no setting {name!r}", hint=f"There are: {', '.join(sorted(_KNOWN))}.", id="pgfanout.E002")
        for name in unknown
    ]
    if isinstance(hub, PostgresHub) and connection.vendor != "postgresql":
        found.append(
            Warning(
                f"the database {alias()!r} is {connection.display_name}, and publish goes through its connection, which"
                " has to be PostgreSQL's",
                hint=f"Name the alias of a PostgreSQL database in {setting_name('USING')}.",
                id="pgfanout.W004",
            )
        )
    if connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS") and not given_settings().get("URL"):
        found.append(
            Warning(
                f"the database {alias()!r} seems to be behind a pooler in transaction mode"
                " (DISABLE_SERVER_SIDE_CURSORS), where no notification arrives",
                hint=f"Set {setting_name('URL')} to the server behind the pooler. Publishing goes through the pooler.",
                id="pgfanout.W001",
            )
        )
    return found


def check_server(app_configs: object, **_: object) -> Sequence[CheckMessage]:
    """A warning for a project that is served by ASGI, where `stream` raises an error."""
    without_wsgi = getattr(settings, "ASGI_APPLICATION", None) and not settings.WSGI_APPLICATION
    if not without_wsgi and not {"daphne", "channels.daphne"} & set(settings.INSTALLED_APPS):
        return []
    reason = "ASGI_APPLICATION is set, and WSGI_APPLICATION is not" if without_wsgi else "daphne replaces runserver"
    return [
        Warning(
            f"the project seems to be served by ASGI, where pgfanout has no streams: {reason}",
            hint="Serve it by WSGI, for example with gunicorn's gthread workers.",
            id="pgfanout.W002",
        )
    ]


def check_middleware(app_configs: object, **_: object) -> Sequence[CheckMessage]:
    """A warning for middlewares that are asynchronous alone: Django runs the views in another thread then."""
    return [
        Warning(
            f"the middleware {path} is asynchronous alone, so every stream keeps a thread of the server",
            hint="Use a middleware that is sync_capable.",
            id="pgfanout.W003",
        )
        for path in settings.MIDDLEWARE
        if not _sync_capable(path)
    ]


def _sync_capable(path: str) -> bool:
    try:
        middleware: Any = import_string(path)
    except ImportError:  # Django says so itself
        return True
    return bool(getattr(middleware, "sync_capable", True))
