"""Migration operations: the history, and tables that publish their changes to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from django.db import router
from django.db.migrations.operations.base import Operation

from ..backends.postgres.history.schema import Schema
from ..backends.postgres.history.settings import schema_of
from ..backends.postgres.history.trigger import TableTrigger
from ..settings import Settings
from .database import given_settings, setting_name

__all__ = ["InstallHistory", "PublishTable"]


class _SqlOperation(Operation):
    """Runs one script forwards and another one backwards, in the migration's transaction.

    Like Django's own operations for PostgreSQL it does nothing on other databases, and where a router allows no
    migrations of the app. No parameter is keyword-only: squashmigrations of Django 4.2 would lose it.
    """

    reversible = True
    reduces_to_sql = True

    def script(self) -> str:
        """Return the SQL that applies the operation: one statement."""
        raise NotImplementedError

    def reverse_script(self) -> str:
        """Return the SQL that reverses it: one statement."""
        raise NotImplementedError

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The project's models stay as they are."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if _applies(app_label, schema_editor):
            schema_editor.execute(self.script(), params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if _applies(app_label, schema_editor):
            schema_editor.execute(self.reverse_script(), params=None)


class InstallHistory(_SqlOperation):
    """Install the history that `PGFANOUT["HISTORY"]` needs, with the settings in PGFANOUT at the time of the migration.

    The `publishers` and `readers` are roles that get the rights to publish, or to listen and to read. The role that
    migrates owns the history and needs neither. If the history is there, it is updated to this version of pgfanout and
    keeps its settings. Reversing drops the history with its events and all its tables' triggers.
    """

    def __init__(self, publishers: Iterable[str] = (), readers: Iterable[str] = ()) -> None:
        self.publishers = list(publishers)
        self.readers = list(readers)

    def script(self) -> str:
        return _schema().script(self.publishers, self.readers, repair=False)

    def reverse_script(self) -> str:
        return _schema().drop_script()

    def describe(self) -> str:
        return "Install pgfanout's history"

    @property
    def migration_name_fragment(self) -> str:
        return "install_history"


class PublishTable(_SqlOperation):
    """Publish each change of a table's rows as an event of the history, also changes made outside of Django.

    `table` is the table's name in the database. `tenant` names the column that says whose a row is: without one, the
    events are for the tenant None. `key` names the columns that identify a row of a tenant (the primary key), `columns`
    those whose changes are published (all), and `payload` those whose values are in the event (none). `when` is an SQL
    condition on the columns. The events go to `channel` (the table's name). `TableTrigger` has the details.

    Put `InstallHistory` first. A later `PublishTable` replaces this one. PostgreSQL refuses to drop or retype a column
    that is named here: put another `PublishTable`, without the column, before that. Reversing stops publishing. Raise
    `ValueError`.
    """

    def __init__(
        self,
        table: str,
        tenant: str | None = None,
        key: Sequence[str] = (),
        channel: str = "",
        columns: Sequence[str] = (),
        payload: Sequence[str] = (),
        when: str = "",
    ) -> None:
        self.trigger = TableTrigger(table, tenant, key, channel, columns, payload, when)

    def script(self) -> str:
        return self._trigger().script()

    def reverse_script(self) -> str:
        return self._trigger().drop_script()

    def describe(self) -> str:
        return f"Publish the changes of the table {self.trigger.table}"

    @property
    def migration_name_fragment(self) -> str:
        return "publish_" + re.sub(r"\W+", "_", self.trigger.table.lower())

    def _trigger(self) -> TableTrigger:
        return replace(self.trigger, schema=_schema().name)


def _applies(app_label: str, schema_editor: Any) -> bool:
    connection = schema_editor.connection
    return connection.vendor == "postgresql" and bool(router.allow_migrate(connection.alias, app_label))


def _schema() -> Schema:
    settings = Settings(given_settings(), setting_name)
    return schema_of(settings.history(), settings.values["POSTGRES_CHANNEL"])
