"""The memory hub delivers after the commits that it can see: those of SQLAlchemy and Django."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from pgfanout import MemoryHub, Subscription
from pgfanout.backends import after_commit
from tests.support.processes import REPOSITORY

# Private members: that nothing is left behind shows nowhere else.

TENANT = "11111111-1111-4111-8111-111111111111"
LONG = 20.0


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """SQLite with savepoints. https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#serializable-isolation-savepoints"""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = on")

    @event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with MemoryHub() as hub:
        yield hub
    gc.collect()
    assert not after_commit._pending


@pytest.fixture
def subscription(hub: MemoryHub) -> Subscription:
    return hub.subscribe("orders", TENANT)


def nothing_but(hub: MemoryHub, subscription: Subscription, *payloads: Any) -> None:
    hub.publish("orders", TENANT, "last")
    arrived = []
    while (payload := subscription.get(LONG).json()) != "last":
        arrived.append(payload)
    assert arrived == list(payloads)


def test_a_session_delivers_after_its_commit(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(note="a"))
        for number in range(2):
            hub.publish_many([("orders", TENANT, [number, 1]), ("orders", TENANT, [number, 2])], executor=session)
        nothing_but(hub, subscription)
        session.commit()
        nothing_but(hub, subscription, [0, 1], [0, 2], [1, 1], [1, 2])
        session.commit()
        nothing_but(hub, subscription)


def test_a_rollback_or_a_close_delivers_nothing(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    with Session(engine) as session:
        hub.publish("orders", TENANT, 1, executor=session)
        session.rollback()
        hub.publish("orders", TENANT, 2, executor=session)
        session.close()
        hub.publish("orders", TENANT, 3, executor=session)
        session.commit()
        hub.publish("orders", TENANT, 4, executor=session)
    nothing_but(hub, subscription, 3)


def test_a_commit_that_fails_delivers_nothing(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE part (of_order INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"))
    broken = text("INSERT INTO part VALUES (7)")
    with Session(engine) as session:
        session.execute(broken)
        hub.publish("orders", TENANT, 1, executor=session)
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            session.commit()
        session.rollback()
    with engine.connect() as connection:
        connection.execute(broken)
        hub.publish("orders", TENANT, 2, executor=connection)
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            connection.commit()
        connection.rollback()
        with pytest.raises(
            sqlalchemy.exc.OperationalError, match="within a transaction"
        ):  # SQLite is still in that one
            hub.publish("orders", TENANT, 3, executor=connection)
        connection.connection.rollback()
        hub.publish("orders", TENANT, 4, executor=connection)
        connection.commit()
    nothing_but(hub, subscription, 4)


def test_savepoints_of_a_session(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    with Session(engine) as session:
        hub.publish("orders", TENANT, 1, executor=session)
        with session.begin_nested():
            hub.publish("orders", TENANT, 2, executor=session)
            with session.begin_nested() as inner:
                hub.publish("orders", TENANT, 3, executor=session)
                inner.rollback()
            hub.publish("orders", TENANT, 4, executor=session)
        with session.begin_nested() as outer:
            with session.begin_nested():
                hub.publish("orders", TENANT, 5, executor=session)
            hub.publish("orders", TENANT, 6, executor=session)
            outer.rollback()
        hub.publish("orders", TENANT, 7, executor=session)
        nothing_but(hub, subscription)
        session.commit()
        nothing_but(hub, subscription, 1, 2, 4, 7)


def test_savepoints_of_a_connection(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    with engine.connect() as connection:
        with connection.begin_nested() as first:
            hub.publish("orders", TENANT, 0, executor=connection)
            first.rollback()
        with connection.begin_nested():
            hub.publish("orders", TENANT, 1, executor=connection)
        with connection.begin_nested():
            hub.publish("orders", TENANT, 2, executor=connection)
            with connection.begin_nested() as inner:
                hub.publish("orders", TENANT, 3, executor=connection)
                inner.rollback()
            hub.publish("orders", TENANT, 4, executor=connection)
        with connection.begin_nested() as outer:
            with connection.begin_nested():
                hub.publish("orders", TENANT, 5, executor=connection)
            hub.publish("orders", TENANT, 6, executor=connection)
            outer.rollback()
        with connection.begin_nested():
            pass
        hub.publish("orders", TENANT, 7, executor=connection)
        nothing_but(hub, subscription)
        connection.commit()
        nothing_but(hub, subscription, 1, 2, 4, 7)


@pytest.mark.filterwarnings("ignore:nested transaction already deassociated from connection")
def test_a_rollback_to_a_savepoint_of_a_connection_undoes_one_in_it_that_is_open(
    hub: MemoryHub, subscription: Subscription, engine: Engine
) -> None:
    with engine.connect() as connection:
        hub.publish("orders", TENANT, 1, executor=connection)
        outer = connection.begin_nested()
        hub.publish("orders", TENANT, 2, executor=connection)
        connection.begin_nested()
        hub.publish("orders", TENANT, 3, executor=connection)
        outer.rollback()
        hub.publish("orders", TENANT, 4, executor=connection)
        connection.commit()
        nothing_but(hub, subscription, 1, 4)


def test_a_transaction_of_two_phases_delivers_after_the_second(
    hub: MemoryHub, subscription: Subscription, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has none. So here they are plain transactions."""
    for phase in ("begin", "prepare", "commit", "rollback"):
        statement = "SELECT 1" if phase == "prepare" else phase
        monkeypatch.setattr(
            engine.dialect,
            f"do_{phase}_twophase",
            lambda connection, *_, do=statement, **__: connection.exec_driver_sql(do),
        )
    with engine.connect() as connection:
        for number in (1, 2):
            transaction = connection.begin_twophase()
            hub.publish("orders", TENANT, number, executor=connection)
            transaction.prepare()
            nothing_but(hub, subscription)
            transaction.commit()
            nothing_but(hub, subscription, number)
        transaction = connection.begin_twophase()
        hub.publish("orders", TENANT, 3, executor=connection)
        transaction.rollback()
        hub.publish("orders", TENANT, 4, executor=connection)
        connection.commit()
        nothing_but(hub, subscription, 4)
    with Session(engine, twophase=True) as session:
        hub.publish("orders", TENANT, 5, executor=session)
        session.prepare()
        session.commit()
        hub.publish("orders", TENANT, 6, executor=session)
        session.rollback()
    nothing_but(hub, subscription, 5)


def test_a_connection_delivers_after_its_commit(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    with engine.connect() as connection:
        untouched = connection._commit_impl
        hub.publish("orders", TENANT, 1, executor=connection)
        hub.publish("orders", TENANT, 2, executor=connection)
        nothing_but(hub, subscription)
        connection.commit()
        nothing_but(hub, subscription, 1, 2)
        hub.publish("orders", TENANT, 3, executor=connection)
        connection.rollback()
        with connection.begin():
            hub.publish("orders", TENANT, 4, executor=connection)
        nothing_but(hub, subscription, 4)
        assert connection._commit_impl == untouched
        hub.publish("orders", TENANT, 5, executor=connection)
    with engine.begin() as connection:
        hub.publish("orders", TENANT, 6, executor=connection)
    nothing_but(hub, subscription, 6)


def test_a_session_in_a_transaction_of_its_test_delivers_at_its_own_commit(
    hub: MemoryHub, subscription: Subscription, engine: Engine
) -> None:
    """https://docs.sqlalchemy.org/en/20/orm/session_transaction.html#joining-a-session-into-an-external-transaction-such-as-for-test-suites"""
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            hub.publish("orders", TENANT, 1, executor=session)
            session.rollback()
            hub.publish("orders", TENANT, 2, executor=session)
            session.commit()
        nothing_but(hub, subscription, 2)
        outer.rollback()


def test_a_scoped_session_and_two_hubs(hub: MemoryHub, subscription: Subscription, engine: Engine) -> None:
    sessions = scoped_session(sessionmaker(engine))
    with MemoryHub() as other:
        elsewhere = other.subscribe("orders", TENANT)
        hub.publish("orders", TENANT, 1, executor=sessions)
        other.publish("orders", TENANT, 2, executor=sessions)
        nothing_but(hub, subscription)
        sessions.commit()
        nothing_but(hub, subscription, 1)
        nothing_but(other, elsewhere, 2)
    sessions.remove()


@pytest.mark.parametrize("of_engine", [False, True])
def test_autocommit_delivers_at_once(hub: MemoryHub, subscription: Subscription, of_engine: bool) -> None:
    engine = create_engine("sqlite://", **({"isolation_level": "AUTOCOMMIT"} if of_engine else {}))
    automatic = engine.execution_options(**({} if of_engine else {"isolation_level": "AUTOCOMMIT"}))
    with Session(automatic) as session:
        hub.publish("orders", TENANT, 1, executor=session)
        nothing_but(hub, subscription, 1)
    with automatic.connect() as connection:
        hub.publish("orders", TENANT, 2, executor=connection)
        nothing_but(hub, subscription, 2)
    engine.dispose()


def test_a_session_is_flushed_and_needs_a_database(hub: MemoryHub, engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all([Order(note="a"), Order(note="a")])
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            hub.publish("orders", TENANT, 1, executor=session)
    with Session() as session, pytest.raises(TypeError, match="bind_arguments"):
        hub.publish("orders", TENANT, 1, executor=session)


def test_a_session_keeps_two_listeners_however_much_is_published(hub: MemoryHub, engine: Engine) -> None:
    with Session(engine) as session:
        for number in range(3):
            hub.publish("orders", TENANT, number, executor=session)
            session.commit()
        assert [len(session.dispatch.after_commit), len(session.dispatch.after_transaction_end)] == [1, 1]
        assert not after_commit._pending


DJANGO = """
import json, sys
import django
from django.conf import settings
databases = {name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"} for name in ("default", "other")}
settings.configure(DATABASES=databases)
django.setup()
from django.db import connection, connections, transaction
from django.test import TestCase
from pgfanout import MemoryHub

TENANT = "11111111-1111-4111-8111-111111111111"
hub = MemoryHub()
subscription = hub.subscribe("orders", TENANT)
heard = []

def publish(payload, executor=connection):
    hub.publish("orders", TENANT, payload, executor=executor)

def arrived():
    hub.publish("orders", TENANT, "last")
    found = []
    while (payload := subscription.get(20.0).json()) != "last":
        found.append(payload)
    heard.append(found)

publish("at once")
arrived()
with transaction.atomic():
    publish(1)
    with transaction.atomic():
        publish(2)
        with transaction.atomic():
            publish(3)
    with transaction.atomic():
        publish(4)
        with transaction.atomic():
            publish(5)
        transaction.set_rollback(True)
    with connection.cursor() as cursor:
        publish(6, cursor)
    publish("of the other's", connections["other"])
    arrived()
arrived()
with transaction.atomic():
    publish(7)
    transaction.set_rollback(True)
arrived()
with transaction.atomic(using="other"):
    publish("of the default's")
    publish("other", connections["other"])
    arrived()
arrived()
connection.set_autocommit(False)
publish("manual")
connection.rollback()
connection.set_autocommit(True)
arrived()

class Test(TestCase):
    def test(self):
        with self.captureOnCommitCallbacks(execute=True):
            publish("captured")
        arrived()
        publish("rolled back with the test")

import unittest
suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
assert unittest.TextTestRunner(stream=open("/dev/null", "w")).run(suite).wasSuccessful()
arrived()
hub.close()
connections.close_all()
print(json.dumps(heard))
"""


def test_djangos_transactions() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DJANGO], cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [
        ["at once"],
        ["of the other's"],
        [1, 2, 3, 6],
        [],
        ["of the default's"],
        ["other"],
        ["manual"],
        ["captured"],
        [],
    ]
