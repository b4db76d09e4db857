"""The migration operations: in the migration's transaction, forwards, backwards and as SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.migrations.migration import Migration
from django.db.migrations.operations import RunSQL
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import OperationWriter
from django.test import override_settings

from pgfanout import Subscription
from pgfanout.django import get_hub, publish
from pgfanout.django.operations import InstallHistory, PublishTable

TENANT = "7d0e2b1c-0000-4000-8000-000000000001"
TABLE = RunSQL("CREATE TABLE parcel (id integer PRIMARY KEY, shop uuid, weight integer)", "DROP TABLE parcel")

Migrate = Callable[..., str]


class NoMigrations:
    """A router that forbids the migrations of one app."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "forbidden" else None


@pytest.fixture
def migrate(database: None) -> Iterator[Migrate]:
    """Applies operations as one migration, or reverses them, or only returns their SQL. In the end nothing is left."""

    def run(*operations: Operation, app: str = "project", backwards: bool = False, only_sql: bool = False) -> str:
        migration = Migration("0002", app)
        migration.operations = list(operations)
        with connection.schema_editor(collect_sql=only_sql, atomic=True) as editor:
            step = migration.unapply if backwards else migration.apply
            step(ProjectState(), editor, collect_sql=only_sql)
            return "\n".join(editor.collected_sql) if only_sql else ""

    yield run
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS pgfanout, other CASCADE; DROP TABLE IF EXISTS parcel CASCADE")


def exists(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
        return bool(cursor.fetchone()[0])


def run_sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def with_history() -> Iterator[None]:
    with override_settings(PGFANOUT={"HISTORY": True}):
        yield


@pytest.mark.usefixtures("with_history")
class TestInstallHistory:
    def test_it_installs_what_the_hub_needs(self, migrate: Migrate) -> None:
        migrate(InstallHistory())
        with get_hub().subscribe("orders", TENANT, after="0") as subscription:
            publish("orders", TENANT, 1)
            assert 1 in [subscription.get(timeout=20.0).json() for _ in range(2)]  # the first one is a refresh

    def test_it_may_run_again(self, migrate: Migrate) -> None:
        migrate(InstallHistory(), InstallHistory())
        migrate(InstallHistory())

    def test_backwards_it_drops_the_history(self, migrate: Migrate) -> None:
        migrate(InstallHistory())
        migrate(InstallHistory(), backwards=True)
        assert not exists("pgfanout.log")

    def test_a_migration_that_fails_leaves_nothing(self, migrate: Migrate) -> None:
        with pytest.raises(Exception, match="no_such_table"):
            migrate(InstallHistory(), RunSQL("SELECT FROM no_such_table"))
        assert not exists("pgfanout.log")

    def test_the_schema_is_that_of_the_settings(self, migrate: Migrate) -> None:
        with override_settings(PGFANOUT={"HISTORY": True, "HISTORY_SCHEMA": "other"}):
            migrate(InstallHistory())
            assert exists("other.log")
            migrate(InstallHistory(), backwards=True)
            assert not exists("other.log")

    def test_roles_get_their_rights(self, migrate: Migrate) -> None:
        sql = migrate(InstallHistory(publishers=["web"], readers=["hub"]), only_sql=True)
        assert 'TO "web"' in sql
        assert 'TO "hub"' in sql

    def test_as_sql_it_does_the_same(self, migrate: Migrate) -> None:
        script = migrate(InstallHistory(), TABLE, PublishTable("parcel", tenant="shop"), only_sql=True)
        assert not exists("pgfanout.log")
        run_sql(script)
        assert exists("pgfanout.log")

    def test_a_router_can_forbid_it(self, migrate: Migrate) -> None:
        with override_settings(DATABASE_ROUTERS=[NoMigrations()]):
            migrate(InstallHistory(), app="forbidden")
            assert not exists("pgfanout.log")
            migrate(InstallHistory())
            migrate(InstallHistory(), app="forbidden", backwards=True)
            assert exists("pgfanout.log")

    def test_on_another_database_it_does_nothing(self, migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
        migrate(InstallHistory())
        assert not exists("pgfanout.log")


@pytest.mark.usefixtures("with_history")
class TestPublishTable:
    @pytest.fixture
    def parcels(self, migrate: Migrate) -> Iterator[Subscription]:
        """What a table publishes that was made in the same migration."""
        migrate(InstallHistory(), TABLE, PublishTable("parcel", tenant="shop", payload=["weight"], channel="parcels"))
        with get_hub().subscribe("parcels", TENANT) as subscription:
            yield subscription

    def test_changes_are_events(self, parcels: Subscription) -> None:
        with transaction.atomic():
            run_sql(f"INSERT INTO parcel VALUES (7, '{TENANT}', 30)")
        event = parcels.get(timeout=20.0)
        assert event.type == "insert"
        assert event.json() == {"operation": "insert", "key": {"id": 7}, "row": {"weight": 30}}

    def test_a_later_one_replaces_it_and_lets_a_column_go(self, parcels: Subscription, migrate: Migrate) -> None:
        later = PublishTable("parcel", tenant="shop", channel="parcels")
        migrate(later, RunSQL("ALTER TABLE parcel DROP COLUMN weight"))
        run_sql(f"INSERT INTO parcel VALUES (7, '{TENANT}')")
        assert parcels.get(timeout=20.0).json() == {"operation": "insert", "key": {"id": 7}}

    def test_without_a_tenant_everyone_may_follow(self, parcels: Subscription, migrate: Migrate) -> None:
        migrate(PublishTable("parcel", channel="parcels"))
        with get_hub().subscribe("parcels", None) as all_parcels:
            run_sql("INSERT INTO parcel VALUES (7, NULL, 30)")
            assert all_parcels.get(timeout=20.0).json()["key"] == {"id": 7}

    def test_backwards_it_stops(self, parcels: Subscription, migrate: Migrate) -> None:
        migrate(PublishTable("parcel", tenant="shop"), backwards=True)
        run_sql(f"INSERT INTO parcel VALUES (8, '{TENANT}', 30)")
        publish("parcels", TENANT, "end")
        assert parcels.get(timeout=20.0).json() == "end"

    def test_backwards_all_of_it_goes(self, parcels: Subscription, migrate: Migrate) -> None:
        migrate(InstallHistory(), TABLE, PublishTable("parcel", tenant="shop"), backwards=True)
        assert not exists("parcel")
        assert not exists("pgfanout.log")

    def test_a_mistake_is_found_when_the_migration_is_read(self) -> None:
        with pytest.raises(ValueError, match="a column needs a name"):
            PublishTable("parcel", tenant="")


@pytest.mark.parametrize(
    "operation",
    [InstallHistory(), InstallHistory(readers=["hub"]), PublishTable("sales.Parcel", tenant="shop", key=["id"])],
)
def test_a_squashed_migration_has_it_as_it_was_written(operation: Any) -> None:
    text, imports = OperationWriter(operation, indentation=0).serialize()
    scope: dict[str, Any] = {}
    exec("\n".join(imports) + f"\nmade = {text.rstrip(',')}", scope)
    assert scope["made"].script() == operation.script()
    assert operation.reversible
    assert operation.describe()
    assert operation.migration_name_fragment in ("install_history", "publish_sales_parcel")
