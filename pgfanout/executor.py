"""Executor: what a publish goes through, and which library's object it is.

Optional libraries are never imported here. An object of SQLAlchemy or Django can only exist after its library was
imported, so `sys.modules` has the library then.
"""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

__all__ = ["Executor", "Kind", "bind_of", "identify"]


class _Result(Protocol):
    """A coroutine has no `fetchall`, so type checkers refuse an asynchronous `execute`."""

    def fetchall(self) -> Sequence[Any]: ...


class _Executes(Protocol):
    """A psycopg connection or cursor, an SQLAlchemy `Session`, `scoped_session` or `Connection`, a Django cursor."""

    def execute(self, query: Any, params: Any = None, /) -> _Result | None:
        """Run one statement, with %s for parameters."""


class _Pool(Protocol):
    """A `psycopg_pool.ConnectionPool`."""

    def connection(self) -> AbstractContextManager[_Executes]: ...
    def putconn(self, conn: Any, /) -> None: ...


class _Block(Protocol):
    """The block object of psycopg's `conn.transaction()`."""

    @property
    def connection(self) -> _Executes: ...
    @property
    def savepoint_name(self) -> str | None: ...


class _DjangoConnection(Protocol):
    """`django.db.connection`, or one of `django.db.connections`."""

    alias: str

    def cursor(self) -> Any: ...
    def ensure_connection(self) -> None: ...
    def on_commit(self, func: Any, robust: bool = False) -> None: ...


Executor: TypeAlias = _Executes | _Pool | _Block | _DjangoConnection
"""What can be passed as `executor`:

- a psycopg connection, cursor, `ConnectionPool` (a connection is borrowed), or the object of `conn.transaction()`;
- an SQLAlchemy `Session`, `scoped_session` (Flask-SQLAlchemy's `db.session`) or `Connection`, by psycopg 3 or psycopg2;
- Django's `connection`, one of its `connections`, or a cursor of them;
- any other object with `execute(query, params)`, with %s for parameters, like psycopg2's cursor.
"""


class Kind(enum.Enum):
    """How to use an executor."""

    SESSION = enum.auto()  # SQLAlchemy's
    SQLALCHEMY = enum.auto()  # SQLAlchemy's Connection
    DJANGO = enum.auto()  # Django's connection
    POOL = enum.auto()
    OTHER = enum.auto()  # it has `execute`


def identify(executor: Any) -> tuple[Kind, Any]:
    """Return how to use an executor, and the object to use: the session of a `scoped_session`, the connection of a
    Django cursor or of a transaction block.

    Nothing is sent. Raise `TypeError`, which says what to pass instead.
    """
    if _is(executor, "sqlalchemy.orm", "scoped_session"):
        executor = executor()
    if _is(executor, "sqlalchemy.orm", "Session"):
        return Kind.SESSION, executor
    if _is(executor, "sqlalchemy", "Connection"):
        return Kind.SQLALCHEMY, executor
    if (connection := _django_connection(executor)) is not None:
        return Kind.DJANGO, connection
    kind: type = type(executor)
    if advice := _advice(kind):
        raise TypeError(f"{_named(executor)} can't be an executor: {advice}")
    if not isinstance(executor, type):
        if callable(getattr(executor, "execute", None)):
            return Kind.OTHER, executor
        connection = getattr(executor, "connection", None)
        if callable(getattr(connection, "execute", None)):
            return identify(connection)
        if callable(connection):
            return Kind.POOL, executor
    raise TypeError(
        "an executor is a connection, cursor, pool or transaction of psycopg, a Session or Connection of SQLAlchemy, or"
        f" the connection or a cursor of Django, not {_named(executor)}"
    )


def bind_of(session: Any) -> Any:
    """Return the engine or connection that `session.connection()` uses. Raise `TypeError` if the session has none."""
    try:
        return session.get_bind()
    except Exception as error:
        if type(error).__name__ != "UnboundExecutionError":
            raise
        problem = (
            "this Session has no engine of its own (bind=...): pass the Connection that the change goes through, which"
            " session.connection(bind_arguments={'mapper': Model}) returns"
        )
    raise TypeError(problem)


def _is(executor: Any, module: str, name: str) -> bool:
    """Whether it is an instance of a library's class, or a proxy of one. If the library is not imported, it isn't."""
    return isinstance(executor, _class(module, name))


def _class(module: str, name: str) -> tuple[type, ...]:
    found = getattr(sys.modules.get(module), name, None)
    return (found,) if isinstance(found, type) else ()


def _django_connection(executor: Any) -> Any:
    """Return Django's connection: a wrapper or the proxy, also of a cursor; otherwise None."""
    if _is(executor, "django.db.backends.utils", "CursorWrapper"):
        return executor.db
    if _is(executor, "django.db.backends.base.base", "BaseDatabaseWrapper"):
        return executor
    # There are proxies for other things (Django's cache), which have no cursors.
    is_proxy = _is(executor, "django.utils.connection", "ConnectionProxy")
    return executor if is_proxy and hasattr(executor, "ensure_connection") else None


@lru_cache
def _advice(kind: type) -> str:
    """Return what to pass instead of an object that looks usable, or is nearly what was meant. Otherwise return ""."""
    package = kind.__module__.partition(".")[0]
    if _is_asynchronous(kind):
        return (
            "it is asynchronous, and an executor has to be synchronous: pass a synchronous connection, or publish"
            " without an executor in a thread (asyncio.to_thread)"
        )
    if package in ("flask_sqlalchemy", "flask_sqlalchemy_lite") and hasattr(kind, "init_app"):
        return "pass db.session"
    if issubclass(kind, _class("sqlalchemy", "Engine")):
        return "pass a Session, or the Connection that engine.connect() or engine.begin() returns"
    if issubclass(kind, _class("sqlalchemy.orm", "sessionmaker")):
        return "pass the Session that it makes"
    if issubclass(kind, _class("psycopg2.extensions", "connection")):
        return "pass a cursor of it, connection.cursor()"
    return ""


def _is_asynchronous(kind: type) -> bool:
    if issubclass(kind, _class("sqlalchemy.ext.asyncio", "AsyncEngine")):
        return True
    methods = (getattr(kind, "execute", None), getattr(kind, "connection", None))
    functions = [inspect.unwrap(method) for method in methods if callable(method)]
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def _named(executor: Any) -> str:
    """Return the name of its class and of its package."""
    kind = executor if isinstance(executor, type) else type(executor)
    package = kind.__module__.partition(".")[0]
    name = kind.__name__ if package == "builtins" else f"{package}'s {kind.__name__}"
    return f"the class {name}" if isinstance(executor, type) else name
