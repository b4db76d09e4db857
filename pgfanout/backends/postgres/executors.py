"""Executes a call through the application's executor, whichever library it is of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import psycopg

from ...executor import Kind, bind_of, identify
from .conninfo import execute

__all__ = ["Call", "run"]

Take = Callable[[Iterable[Any]], object]


class Call(NamedTuple):
    """One statement with %s for parameters. Text that must not depend on an encoding is `bytes`, with `%s::bytea`."""

    statement: str
    params: tuple[Any, ...]

    def run(self, connection: psycopg.Connection[Any], start: str = "SELECT ") -> psycopg.Cursor[tuple[Any, ...]]:
        """Execute the call on a psycopg connection. A caller's connection may have a cursor of any kind in use."""
        return execute(connection, _for_psycopg(self.statement, start), self.params)

    def run_anywhere(self, cursor: Any) -> Any:
        """Execute the call on anything that has `execute`, and return the result.

        Bytes go as the hexadecimal text that `::bytea` reads. So no driver escapes them, each by rules of its own.
        """
        return cursor.execute(self.statement, tuple(_hexadecimal(param) for param in self.params))


@cache
def _for_psycopg(statement: str, start: str) -> bytes:
    # Binary: otherwise psycopg escapes bytes as a literal, which is another text without standard_conforming_strings.
    return statement.replace("%s::bytea", "%b::bytea").replace("SELECT ", start, 1).encode()


def _hexadecimal(param: Any) -> Any:
    if isinstance(param, list):
        return [_hexadecimal(each) for each in param]
    return rf"\x{param.hex()}" if isinstance(param, bytes) else param


def _nothing(rows: Iterable[Any]) -> None:
    pass


def run(call: Call, executor: Any, take: Take = _nothing) -> None:
    """Execute a call through the application's executor, in its transaction. Pass the rows to `take`.

    Block for a round trip. Raise the executor's own errors, and `TypeError` for something that can't be one.
    """
    kind, executor = identify(executor)
    if kind is Kind.SESSION:
        _check_dialect(bind_of(executor))
        executor.flush()  # no event precedes the write that it tells of
        _run_on_sqlalchemy(call, executor.connection(), take)
    elif kind is Kind.SQLALCHEMY:
        _check_dialect(executor)
        _run_on_sqlalchemy(call, executor, take)
    elif kind is Kind.DJANGO:
        _run_on_django(call, executor, take)
    elif kind is Kind.POOL:
        with _borrowed(executor) as connection:
            run(call, connection, take)
    else:
        _run_on_other(call, executor, take)


def _check_dialect(bind: Any) -> None:
    """Raise `TypeError` unless an engine or connection of SQLAlchemy is PostgreSQL's, by a driver that is known."""
    dialect = bind.dialect
    name = f"{'an asynchronous ' if dialect.is_async else ''}{dialect.name}+{dialect.driver}"
    if name not in ("postgresql+psycopg", "postgresql+psycopg2"):
        raise TypeError(
            f"the engine of this Session or Connection is {name}: an executor's has to be postgresql+psycopg or"
            " postgresql+psycopg2. Publish without an executor, through the hub's own connection"
        )


def _run_on_sqlalchemy(call: Call, connection: Any, take: Take) -> None:
    """Execute on the driver's connection, so that neither SQLAlchemy's errors nor its log show the payload."""
    if not connection.in_transaction():
        connection.begin()  # as its own execute does. Without it a commit would do nothing.
    driver_connection = connection.connection.driver_connection
    if isinstance(driver_connection, psycopg.Connection):
        take(call.run(driver_connection))
        return
    with driver_connection.cursor() as cursor:
        call.run_anywhere(cursor)
        take(cursor)


def _run_on_django(call: Call, connection: Any, take: Take) -> None:
    """Execute on a new cursor. Django connects if it has to, and raises its own errors: in a broken transaction, in the
    wrong thread, or in a test without a database."""
    if connection.vendor != "postgresql":
        raise TypeError(
            f"Django's connection {connection.alias!r} is of {connection.vendor}: events go through one of PostgreSQL"
        )
    with connection.cursor() as cursor:
        call.run_anywhere(cursor)
        take(cursor)


@contextmanager
def _borrowed(pool: Any) -> Iterator[Any]:
    borrowing = pool.connection()
    _check_synchronous(borrowing)
    with borrowing as connection:
        yield connection


def _run_on_other(call: Call, executor: Any, take: Take) -> None:
    connection = getattr(executor, "connection", executor)  # of a cursor
    if isinstance(connection, psycopg.Connection):
        take(call.run(connection))
        return
    result = call.run_anywhere(executor)
    _check_synchronous(result)
    take(executor if result is None else result)  # by DB-API 2.0 `execute` returns nothing, and the cursor has the rows


def _check_synchronous(result: Any) -> None:
    if inspect.iscoroutine(result):
        result.close()  # otherwise Python warns that it was never awaited
    if inspect.isawaitable(result):
        raise TypeError("an executor has to be synchronous, but the result of this one has to be awaited")
