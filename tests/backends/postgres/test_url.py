"""Connection strings of other libraries, and what is said of one that can't be read."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy

from pgfanout import HubConfigurationError, PostgresHub
from pgfanout.backends.postgres.conninfo import Parameters, parse

TENANT = uuid.UUID(int=7)
SECRET = "hunter2"


def names(parameters: Parameters, *wanted: str) -> list[str]:
    return [parameters.get(name) for name in wanted]


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2", "postgres+psycopg"]
)
def test_a_url_of_sqlalchemy_is_one_of_libpq(scheme: str) -> None:
    parameters = parse(f"{scheme}://me:{SECRET}@db.example:5433/shop?sslmode=require&application_name=web")
    wanted = names(parameters, "user", "password", "host", "port", "dbname", "sslmode", "application_name")
    assert wanted == ["me", SECRET, "db.example", "5433", "shop", "require", "web"]


@pytest.mark.parametrize("password", ["a/b", "a:b/c?d#e", "a b", "%41%2F", "a%3Ab"])
def test_a_password_means_what_it_means_to_sqlalchemy(password: str) -> None:
    url = f"postgresql+psycopg://m%2Fe:{password}@db.example/shop"
    theirs = sqlalchemy.make_url(url)
    ours = parse(url)
    assert names(ours, "user", "password", "host", "dbname") == ["m/e", theirs.password, "db.example", "shop"]


@pytest.mark.parametrize("url", ["postgresql+psycopg:///shop", "postgresql+psycopg://db.example/shop"])
def test_a_url_needs_no_login(url: str) -> None:
    assert names(parse(url), "user", "password", "dbname") == ["", "", "shop"]


def test_a_url_of_sqlalchemy_connects(fresh_database_url: str) -> None:
    with PostgresHub(fresh_database_url.replace("postgresql:", "postgresql+psycopg2:")) as hub:
        subscription = hub.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, 1)
        assert subscription.get(20.0).json() == 1


URL = sqlalchemy.make_url(f"postgresql+psycopg://me:{SECRET}@db.example/shop")

REFUSED: list[tuple[Any, str]] = [
    (f"postgresql+asyncpg://me:{SECRET}@db/shop", r"postgresql:// instead of postgresql\+asyncpg://"),
    (f"postgresql+pg8000://me:{SECRET}@db/shop", r"postgresql:// instead of postgresql\+pg8000://"),
    (URL, r"render_as_string\(hide_password=False\)"),
    (str(URL), r"\*\*\* .*render_as_string\(hide_password=False\)"),
    (f"postgresql+psycopg://me:{SECRET}@db/shop?pool_size=5&sslmode=require", "'pool_size' .* create_engine"),
    (f"postgresql://me:{SECRET}@db/shop?sslmode=require&foo=1&bar=2", "'foo', 'bar'"),
    (f"host=db password='{SECRET} x' foo=1", "parameter 'foo' "),
    (f"foo=1 host=db password={SECRET}", "parameter 'foo' "),
    ("postgresql+psycopg:///shop?host=one:5432&host=two:5432", "one:5432,two:5432"),
    ("postgresql//db", "has to look like"),
    (7, "has to look like"),
]


@pytest.mark.parametrize(("conninfo", "message"), REFUSED, ids=[str(case[1]) for case in REFUSED])
def test_what_can_not_be_read_is_said_without_a_secret(conninfo: Any, message: str) -> None:
    with pytest.raises(HubConfigurationError, match=message) as caught:
        PostgresHub(conninfo)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "conninfo",
    [
        f"host=db password=abc {SECRET}=1",
        f"host=db password=abc {SECRET}=1 foo=2",
        f"postgresql://me:ab/cd?{SECRET}=1@db/shop",
        f"postgresql://me:ab/cd?{SECRET}=1&x@db/shop?foo=1",
    ],
)
def test_what_may_be_a_part_of_a_password_is_not_shown(conninfo: str) -> None:
    with pytest.raises(HubConfigurationError) as caught:
        PostgresHub(conninfo)
    assert SECRET not in str(caught.value)


def test_libpqs_own_parameters_are_taken() -> None:
    parameters = parse("postgresql://db/shop?ssl=true&keepalives_idle=7&options=-c%20geqo%3Doff")
    assert names(parameters, "sslmode", "keepalives_idle", "options") == ["require", "7", "-c geqo=off"]
