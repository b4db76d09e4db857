"""The hub's database: that of a Django alias, as its settings are at the moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings
from django.db import connections

from ..errors import HubConfigurationError

__all__ = ["alias", "given_settings", "hub_url", "remember_name", "respect_block", "setting_name", "url_of"]

# What `psycopg.connect` takes besides libpq's parameters.
_OF_THE_DRIVER: Final = ("autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory")

_names_at_start: dict[str, object] = {}


def setting_name(name: str) -> str:
    """Return how a setting is written in the project's settings, for messages."""
    return f'PGFANOUT["{name}"]'


def given_settings() -> Mapping[str, Any]:
    """Return the project's setting PGFANOUT. Raise `HubConfigurationError` if it is no dictionary."""
    given = getattr(settings, "PGFANOUT", {})
    if not isinstance(given, Mapping):
        raise HubConfigurationError(
            f'PGFANOUT has to be a dictionary such as {{"HISTORY": True}}, not a {type(given).__name__}'
        )
    return given


def alias() -> str:
    """Return the alias of the hub's database. Raise `HubConfigurationError` if DATABASES has no such alias."""
    name = given_settings().get("USING", "default")
    if name not in connections:
        raise HubConfigurationError(f"{setting_name('USING')} is {name!r}, and DATABASES has no such alias")
    return str(name)


def remember_name() -> None:
    """Keep the name of the hub's database as it is before tests replace it."""
    _names_at_start[alias()] = connections[alias()].settings_dict["NAME"]


def hub_url() -> str:
    """Return the URL or connection string for the hub.

    A URL in the settings names the server that the hub listens at, such as the one behind a pooler. While tests run on
    a database of another name, that name replaces the URL's. Raise `HubConfigurationError`.
    """
    using = alias()
    url = given_settings().get("URL")
    if not url:
        return url_of(using)
    name = connections[using].settings_dict["NAME"]
    is_tested = _names_at_start.get(using, name) != name
    return _with_database(str(url), str(name)) if is_tested else str(url)


def respect_block(using: str) -> None:
    """Raise the test framework's own error in a test that may not use the database.

    Such a test has no test database: the alias still names the project's own one. A `SimpleTestCase` replaces `connect`
    on the connection, and pytest-django replaces `ensure_connection` on its class.
    """
    connection = connections[using]
    by_django = type(vars(connection).get("connect")).__name__ == "_DatabaseFailure"
    if by_django or type(connection).ensure_connection.__module__.startswith("pytest_django"):
        connection.ensure_connection()


def url_of(using: str) -> str:
    """Return the connection string of an alias. Raise `HubConfigurationError` if that is not PostgreSQL's."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        raise HubConfigurationError(
            f"the database {using!r} is {connection.display_name}, and the hub needs PostgreSQL: name the alias of a"
            f" PostgreSQL database in {setting_name('USING')}, or set {setting_name('URL')}"
        )
    return _conninfo(connection.get_connection_params())


def _conninfo(parameters: Mapping[str, Any]) -> str:
    given = {name: value for name, value in parameters.items() if name not in _OF_THE_DRIVER and value is not None}
    return " ".join(f"{name}={_quoted(value)}" for name, value in given.items())


def _quoted(value: object) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", str(value)) + "'"


def _with_database(url: str, name: str) -> str:
    """Return a URL or connection string of PostgreSQL with another database. Of two names libpq takes the second."""
    scheme, found, _ = url.partition("://")
    if not found:
        return f"{url} dbname={_quoted(name)}"
    if not scheme.startswith("postgres"):
        return url
    return f"{url}{'&' if '?' in url else '?'}dbname={quote(name, safe='')}"
