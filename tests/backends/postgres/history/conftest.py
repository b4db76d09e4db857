"""Fixtures of the tests of the log: a database with nothing else in it, who writes, who looks on, who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from pgfanout.backends.postgres.history.schema import Schema
from tests.support.event_log import LONG, Connect, Ear, Follower, pending
from tests.support.postgres import PostgresServer, random_name


@pytest.fixture(scope="module")
def module_url(postgres: PostgresServer) -> Iterator[str]:
    name = random_name("log")
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def url(module_url: str) -> str:
    """A database with nothing but a new log in it: made in a quarter of the time that a new database takes."""
    with psycopg.connect(module_url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS pgfanout, public CASCADE")
        connection.execute("CREATE SCHEMA public")
        Schema().install(connection)
    return module_url


@pytest.fixture
def reader(url: str) -> Iterator[psycopg.Connection]:
    """A session that looks on, each statement for itself. In the end nothing is pending."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
        assert pending(connection) == 0


@pytest.fixture
def connect(url: str, reader: psycopg.Connection) -> Iterator[Connect]:
    """Opens sessions that write. None waits for ever for another that the test has forgotten."""
    opened: list[psycopg.Connection] = []

    def open() -> psycopg.Connection:
        opened.append(psycopg.connect(url, options=f"-c lock_timeout={LONG}s"))
        return opened[-1]

    yield open
    for connection in opened:
        connection.close()


@pytest.fixture
def writer(connect: Connect) -> psycopg.Connection:
    return connect()


@pytest.fixture
def ear(url: str) -> Iterator[Ear]:
    with Ear(url) as ear:
        yield ear


@pytest.fixture
def follow(url: str) -> Iterator[Callable[[], Follower]]:
    """Starts readers with a cursor."""
    started: list[Follower] = []

    def start() -> Follower:
        started.append(Follower(url))
        return started[-1]

    yield start
    for follower in started:
        follower.finish()
