"""What type checkers accept as an executor, and what they refuse. Nothing runs this: `mypy --strict` checks it.

Each `type: ignore` is a refusal, and a refusal that does not happen is an error of its own.
"""

from __future__ import annotations

from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pgfanout import Executor, NotifyHub, PostgresHub
from pgfanout.flask import PgFanout


def accepted_of_psycopg(
    hub: NotifyHub,
    connection: psycopg.Connection,
    row_connection: psycopg.Connection[dict[str, Any]],
    cursor: psycopg.Cursor[Any],
    client_cursor: psycopg.ClientCursor[Any],
    server_cursor: psycopg.ServerCursor[Any],
    pool: psycopg_pool.ConnectionPool,
    null_pool: psycopg_pool.NullConnectionPool,
    block: psycopg.Transaction,
) -> None:
    hub.publish("orders", "tenant", 1, executor=connection)
    hub.publish("orders", "tenant", 1, executor=row_connection)
    hub.publish("orders", "tenant", 1, executor=cursor)
    hub.publish("orders", "tenant", 1, executor=client_cursor)
    hub.publish("orders", "tenant", 1, executor=server_cursor)
    hub.publish("orders", "tenant", 1, executor=pool)
    hub.publish("orders", "tenant", 1, executor=null_pool)
    hub.publish("orders", "tenant", 1, executor=block)
    hub.publish_many([], executor=connection)
    hub.cursor(executor=connection)
    PostgresHub("", pool)


def accepted_of_sqlalchemy(
    hub: NotifyHub,
    fanout: PgFanout,
    session: Session,
    scoped: scoped_session[Session],
    connection: sqlalchemy.Connection,
    db: SQLAlchemy,
) -> None:
    hub.publish("orders", "tenant", 1, executor=session)
    hub.publish("orders", "tenant", 1, executor=scoped)
    hub.publish("orders", "tenant", 1, executor=connection)
    fanout.publish("orders", "tenant", 1, executor=db.session)
    fanout.publish_many([], executor=db.session)
    fanout.cursor(executor=db.session)


class DjangoConnection:
    """Django has no types of its own. These are the ones of django-stubs."""

    alias: str = "default"

    def cursor(self) -> Cursor:
        return Cursor()

    def ensure_connection(self) -> None: ...
    def on_commit(self, func: Any, robust: bool = False) -> None: ...


class Cursor:
    """A cursor of DB-API 2.0, as Django's and psycopg2's."""

    def execute(self, query: str, vars: Any = None) -> None: ...
    def fetchall(self) -> list[tuple[Any, ...]]:
        return []


def accepted_of_others(hub: NotifyHub, connection: DjangoConnection, cursor: Cursor, any_of_them: Executor) -> None:
    hub.publish("orders", "tenant", 1, executor=connection)
    hub.publish("orders", "tenant", 1, executor=cursor)
    hub.publish("orders", "tenant", 1, executor=any_of_them)
    hub.publish("orders", "tenant", 1, executor=None)


def refused_of_psycopg(
    hub: NotifyHub,
    connection: psycopg.AsyncConnection,
    cursor: psycopg.AsyncCursor[Any],
    pool: psycopg_pool.AsyncConnectionPool,
    block: psycopg.AsyncTransaction,
) -> None:
    hub.publish("orders", "tenant", 1, executor=connection)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=cursor)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=pool)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=block)  # type: ignore[arg-type]


def refused_of_sqlalchemy(
    hub: NotifyHub,
    session: AsyncSession,
    connection: AsyncConnection,
    async_engine: AsyncEngine,
    engine: sqlalchemy.Engine,
    sessions: sessionmaker[Session],
) -> None:
    hub.publish("orders", "tenant", 1, executor=session)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=connection)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=async_engine)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=engine)  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=sessions)  # type: ignore[arg-type]


def refused_of_others(hub: NotifyHub, fanout: PgFanout) -> None:
    hub.publish("orders", "tenant", 1, executor="postgresql://")  # type: ignore[arg-type]
    hub.publish("orders", "tenant", 1, executor=Session)  # type: ignore[arg-type]
    fanout.publish("orders", "tenant", 1, executor=42)  # type: ignore[arg-type]
    hub.cursor(executor=fanout)  # type: ignore[arg-type]
