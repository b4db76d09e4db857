"""What can be an executor, and what is said of an object that can't."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import flask
import flask_sqlalchemy
import psycopg
import psycopg2.extensions
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from werkzeug.local import LocalProxy

from pgfanout import MemoryHub, PostgresHub
from pgfanout.backends.postgres.executors import Call, run
from pgfanout.executor import Kind, identify

TENANT = "11111111-1111-4111-8111-111111111111"

ENGINE = sqlalchemy.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere")
ASYNC_ENGINE = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere")


class Executes:
    def execute(self, query: str, params: Any = None) -> None: ...


class Lends:
    @contextmanager
    def connection(self) -> Any:
        yield Executes()


class Block:
    connection = Executes()


class LendsAsynchronously:
    @asynccontextmanager
    async def connection(self) -> Any:
        yield Executes()


class ExecutesAsynchronously:
    async def execute(self, query: str, params: Any = None) -> None: ...


class AsynchronousBlock:
    connection = ExecutesAsynchronously()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Session(ENGINE), Kind.SESSION),
        (lambda: sqlalchemy.Connection.__new__(sqlalchemy.Connection), Kind.SQLALCHEMY),
        (Executes, Kind.OTHER),
        (Lends, Kind.POOL),
    ],
    ids=["Session", "Connection", "execute", "pool"],
)
def test_an_executor_is_used_as_it_is(make: Callable[[], Any], kind: Kind) -> None:
    executor = make()
    assert identify(executor) == (kind, executor)


def test_the_session_of_a_scoped_session_is_used() -> None:
    sessions = scoped_session(sessionmaker(ENGINE))
    assert identify(sessions) == (Kind.SESSION, sessions())
    sessions.remove()


def test_a_proxy_of_a_session_is_used_as_one() -> None:
    with Session(ENGINE) as session:
        kind, used = identify(LocalProxy(lambda: session))
        assert (kind, used.flush) == (Kind.SESSION, session.flush)


def test_the_connection_of_a_transaction_block_is_used() -> None:
    assert identify(Block()) == (Kind.OTHER, Block.connection)


def database() -> flask_sqlalchemy.SQLAlchemy:
    return flask_sqlalchemy.SQLAlchemy()


def unmade(kind: Any) -> Any:
    """An object of a class that has to be made in an event loop."""
    return kind.__new__(kind)


REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("number", lambda: 42, "not int"),
    ("url", lambda: "postgresql://", "not str"),
    ("class", lambda: Session, "not the class sqlalchemy's Session"),
    ("function", lambda: lambda: Executes(), "not function"),
    ("Engine", lambda: ENGINE, r"sqlalchemy's Engine can't be an executor: pass a Session, or the Connection"),
    ("sessionmaker", lambda: sessionmaker(ENGINE), "pass the Session that it makes"),
    ("db", database, r"flask_sqlalchemy's SQLAlchemy can't be an executor: pass db\.session"),
    ("psycopg2", lambda: unmade(psycopg2.extensions.connection), r"psycopg2's connection .*connection\.cursor\(\)"),
    ("AsyncSession", lambda: AsyncSession(ASYNC_ENGINE), "sqlalchemy's AsyncSession .* synchronous"),
    ("async_scoped_session", lambda: async_scoped_session(async_sessionmaker(), lambda: 1), "synchronous"),
    ("sync_session", lambda: AsyncSession(ASYNC_ENGINE).sync_session, "asynchronous postgresql"),
    ("AsyncConnection of SQLAlchemy", lambda: AsyncConnection(ASYNC_ENGINE), "synchronous"),
    ("AsyncEngine", lambda: ASYNC_ENGINE, "sqlalchemy's AsyncEngine .* synchronous"),
    ("AsyncConnection of psycopg", lambda: unmade(psycopg.AsyncConnection), "psycopg's AsyncConnection .* synchronous"),
    ("AsyncCursor", lambda: unmade(psycopg.AsyncCursor), "synchronous"),
    ("AsyncConnectionPool", lambda: unmade(psycopg_pool.AsyncConnectionPool), "synchronous"),
    ("asynchronous execute", ExecutesAsynchronously, "synchronous"),
    ("asynchronous pool", LendsAsynchronously, "synchronous"),
    ("asynchronous block", AsynchronousBlock, "synchronous"),
]
KNOWN_BY_POSTGRES_ALONE = "sync_session"


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_executor_is_named_with_what_to_pass(make: Callable[[], Any], message: str) -> None:
    executor = make()
    with PostgresHub("postgresql://nobody@127.0.0.1:1/nowhere") as hub:
        with pytest.raises(TypeError, match=message):
            hub.publish("orders", TENANT, 1, executor=executor)


@pytest.mark.parametrize(
    ("make", "message"),
    [case[1:] for case in REFUSED if case[0] != KNOWN_BY_POSTGRES_ALONE],
    ids=[case[0] for case in REFUSED if case[0] != KNOWN_BY_POSTGRES_ALONE],
)
def test_the_memory_hub_refuses_the_same(make: Callable[[], Any], message: str) -> None:
    executor = make()
    with MemoryHub() as hub, pytest.raises(TypeError, match=message):
        hub.publish("orders", TENANT, 1, executor=executor)


def test_a_session_of_another_database_or_without_one_is_refused() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with PostgresHub("postgresql://nobody@127.0.0.1:1/nowhere") as hub:
        with Session(engine) as session:
            with pytest.raises(TypeError, match="is sqlite.pysqlite: an executor's has to be postgresql"):
                hub.publish("orders", TENANT, 1, executor=session)
            with pytest.raises(TypeError, match="is sqlite.pysqlite"):
                hub.publish("orders", TENANT, 1, executor=session.connection())
        with Session() as session, pytest.raises(TypeError, match="bind_arguments"):
            hub.publish("orders", TENANT, 1, executor=session)
    engine.dispose()


def test_an_application_outside_its_context_is_told_so_by_flask_sqlalchemy() -> None:
    app = flask.Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = database()
    db.init_app(app)
    with MemoryHub() as hub, pytest.raises(RuntimeError, match="application context"):
        hub.publish("orders", TENANT, 1, executor=db.session)


WITHOUT = """
import sys
for name in ("sqlalchemy", "django", "psycopg2", "flask_sqlalchemy", "psycopg_pool"):
    sys.modules[name] = None
from pgfanout import MemoryHub
class Executes:
    def execute(self, query, params=None): ...
with MemoryHub() as hub:
    hub.publish("orders", "11111111-1111-4111-8111-111111111111", 1, executor=Executes())
    try:
        hub.publish("orders", "11111111-1111-4111-8111-111111111111", 1, executor=object())
    except TypeError as error:
        print(error)
"""


def test_no_library_is_imported_for_an_executor_of_another() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not object" in done.stdout


def test_an_awaitable_that_only_shows_when_it_is_there_is_refused_without_a_warning() -> None:
    class Hidden:
        def execute(self, query: str, params: Any) -> Any:
            return asyncio.sleep(0)

    class HiddenPool:
        def connection(self) -> Any:
            return asyncio.sleep(0)

    for executor in (Hidden(), HiddenPool()):
        with pytest.raises(TypeError, match="synchronous"):
            run(Call("SELECT 1", ()), executor)
