"""Where the hub's database is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.db import connection, connections
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from pgfanout import HubConfigurationError
from pgfanout.django.database import hub_url, url_of


@pytest.fixture
def settings(project: None) -> Iterator[dict[str, Any]]:
    """The alias's own settings. In the end they are as they were."""
    own = connection.settings_dict
    before = dict(own)
    own.update(NAME="nothing", HOST="127.0.0.1", PORT=1)  # other tests may have a test database by now
    yield own
    own.clear()
    own.update(before)


def parameters() -> dict[str, Any]:
    return conninfo_to_dict(hub_url())


def test_it_is_the_aliass_own(settings: dict[str, Any]) -> None:
    settings.update(HOST="db", PORT=5433, USER="o'neill", PASSWORD=r"a b'\c", NAME="the shop")
    settings["OPTIONS"] = {"sslmode": "require", "connect_timeout": 3}
    assert parameters() == {
        "client_encoding": "UTF8",
        "connect_timeout": "3",
        "dbname": "the shop",
        "host": "db",
        "password": r"a b'\c",
        "port": "5433",
        "sslmode": "require",
        "user": "o'neill",
    }


def test_what_is_djangos_or_the_drivers_is_left_out(settings: dict[str, Any]) -> None:
    settings["OPTIONS"] = {
        "prepare_threshold": 5,
        "isolation_level": 3,
        "server_side_binding": True,
        "assume_role": "web",
    }
    if django.VERSION >= (5, 1):
        settings["OPTIONS"]["pool"] = {"min_size": 2}
    assert set(parameters()) == {"client_encoding", "dbname", "host", "port", "user"}


def test_a_service_names_the_database(settings: dict[str, Any]) -> None:
    settings.update(HOST="", PORT="", USER="", NAME="", OPTIONS={"service": "shop"})
    assert parameters() == {"client_encoding": "UTF8", "service": "shop"}


def test_a_url_in_the_settings_stays_as_it_is(settings: dict[str, Any]) -> None:
    with override_settings(PGFANOUT={"URL": "postgresql://web@db/shop"}):
        assert hub_url() == "postgresql://web@db/shop"


@pytest.mark.parametrize(
    "url",
    ["postgresql://web@db/shop", "postgres://web@db/shop?connect_timeout=3", "host=db user=web dbname=shop"],
)
def test_a_test_database_replaces_that_of_a_url(settings: dict[str, Any], url: str) -> None:
    settings["NAME"] = "test_the shop&more"
    with override_settings(PGFANOUT={"URL": url}):
        assert parameters()["dbname"] == "test_the shop&more"
        assert parameters()["host"] == "db"


def test_a_hub_of_another_kind_has_no_database(settings: dict[str, Any]) -> None:
    settings["NAME"] = "test_shop"
    with override_settings(PGFANOUT={"URL": "memory://"}):
        assert hub_url() == "memory://"


def test_another_alias_may_be_named(settings: dict[str, Any]) -> None:
    connections.settings["events"] = {**settings, "NAME": "events"}
    try:
        with override_settings(PGFANOUT={"USING": "events"}):
            assert parameters()["dbname"] == "events"
        assert conninfo_to_dict(url_of("events"))["dbname"] == "events"
    finally:
        del connections["events"], connections.settings["events"]


def test_an_alias_that_is_not_there_is_named(project: None) -> None:
    with override_settings(PGFANOUT={"USING": "events"}), pytest.raises(HubConfigurationError, match="'events'"):
        hub_url()
