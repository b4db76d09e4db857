"""Events go through the objects of SQLAlchemy, Django and psycopg2 as through the change that they tell of."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import flask
import flask_sqlalchemy
import psycopg
import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, ResourceClosedError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from pgfanout import PostgresHub, Subscription
from pgfanout.executor import Executor
from tests.support.processes import REPOSITORY

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
LONG = 20.0
ODD = "naïve żółć 日本 🎉 \\ 'quoted' \"%s\" %(x)s {} \\x41"


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(unique=True)


@pytest.fixture(params=[False, True], ids=["notify", "history"])
def hub(request: pytest.FixtureRequest, fresh_database_url: str) -> Iterator[PostgresHub]:
    with PostgresHub(fresh_database_url, history=request.param) as hub:
        hub.install_history()
        yield hub


@pytest.fixture
def subscription(hub: PostgresHub) -> Subscription:
    return hub.subscribe("orders", TENANT)


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, fresh_database_url: str) -> Iterator[Engine]:
    engine = create_engine(fresh_database_url.replace("postgresql:", f"postgresql+{request.param}:"))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def nothing_but(hub: PostgresHub, subscription: Subscription, *payloads: Any) -> None:
    """Everything that was sent before has arrived, and it is this."""
    hub.publish("orders", TENANT, "last")
    arrived = []
    while (payload := subscription.get(LONG).json()) != "last":
        arrived.append(payload)
    assert arrived == list(payloads)


def test_a_session_delivers_at_its_commit(hub: PostgresHub, subscription: Subscription, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(note="a"))
        hub.publish("orders", TENANT, ODD, executor=session)
        hub.publish_many([("orders", TENANT, 2), ("orders", TENANT, 3, "made")], executor=session)
        nothing_but(hub, subscription)
        session.commit()
        nothing_but(hub, subscription, ODD, 2, 3)
        hub.publish("orders", TENANT, 4, executor=session)
        session.rollback()
        nothing_but(hub, subscription)


def test_a_session_that_has_done_nothing_yet_delivers_at_its_commit(
    hub: PostgresHub, subscription: Subscription, engine: Engine
) -> None:
    with Session(engine) as session, session.begin():
        hub.publish("orders", TENANT, 1, executor=session)
    nothing_but(hub, subscription, 1)


def test_a_session_is_flushed_before_the_event(hub: PostgresHub, subscription: Subscription, engine: Engine) -> None:
    with Session(engine) as session:
        order = Order(note="a")
        session.add(order)
        hub.publish("orders", TENANT, 1, executor=session)
        assert order.id
        session.add(Order(note="a"))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            hub.publish("orders", TENANT, 2, executor=session)
        with pytest.raises(PendingRollbackError):
            hub.publish("orders", TENANT, 3, executor=session)
    nothing_but(hub, subscription)


def test_a_savepoint_of_a_session_takes_its_events_with_it(
    hub: PostgresHub, subscription: Subscription, engine: Engine
) -> None:
    with Session(engine) as session:
        hub.publish("orders", TENANT, 1, executor=session)
        with session.begin_nested() as outer:
            hub.publish("orders", TENANT, 2, executor=session)
            with session.begin_nested():
                hub.publish("orders", TENANT, 3, executor=session)
            outer.rollback()
        with session.begin_nested():
            hub.publish("orders", TENANT, 4, executor=session)
        session.commit()
    nothing_but(hub, subscription, 1, 4)


def test_a_scoped_session_is_its_threads_session(hub: PostgresHub, subscription: Subscription, engine: Engine) -> None:
    sessions = scoped_session(sessionmaker(engine))
    hub.publish("orders", TENANT, 1, executor=sessions)
    nothing_but(hub, subscription)
    sessions.commit()
    nothing_but(hub, subscription, 1)
    sessions.remove()


def test_flask_sqlalchemys_session_is_an_executor(hub: PostgresHub, subscription: Subscription, engine: Engine) -> None:
    app = flask.Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = engine.url
    db = flask_sqlalchemy.SQLAlchemy(model_class=Base)
    db.init_app(app)
    with app.app_context():
        db.session.add(Order(note="a"))
        hub.publish("orders", TENANT, 1, executor=db.session)
        nothing_but(hub, subscription)
        db.session.commit()
        nothing_but(hub, subscription, 1)
        db.engine.dispose()


def test_a_connection_delivers_at_its_commit(hub: PostgresHub, subscription: Subscription, engine: Engine) -> None:
    with engine.connect() as connection:
        hub.publish("orders", TENANT, 1, executor=connection)
        nothing_but(hub, subscription)
        connection.commit()
        nothing_but(hub, subscription, 1)
        with connection.begin():
            hub.publish("orders", TENANT, 2, executor=connection)
            with connection.begin_nested() as savepoint:
                hub.publish("orders", TENANT, 3, executor=connection)
                savepoint.rollback()
        nothing_but(hub, subscription, 2)
        hub.publish("orders", TENANT, 4, executor=connection)
    nothing_but(hub, subscription)


def test_a_connection_of_autocommit_delivers_at_once(
    hub: PostgresHub, subscription: Subscription, engine: Engine
) -> None:
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    with automatic.connect() as connection, Session(automatic) as session:
        hub.publish("orders", TENANT, 1, executor=connection)
        nothing_but(hub, subscription, 1)
        hub.publish("orders", TENANT, 2, executor=session)
        nothing_but(hub, subscription, 2)


def test_a_connection_that_was_begun_by_its_execute_is_not_begun_again(
    hub: PostgresHub, subscription: Subscription, engine: Engine
) -> None:
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO orders (note) VALUES ('a')"))
        hub.publish("orders", TENANT, 1, executor=connection)
        connection.commit()
        assert connection.execute(text("SELECT note FROM orders")).scalars().all() == ["a"]
    nothing_but(hub, subscription, 1)


def test_what_is_closed_says_so_and_sends_nothing(
    hub: PostgresHub, subscription: Subscription, engine: Engine, fresh_database_url: str
) -> None:
    session = Session(engine, close_resets_only=False)
    session.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        hub.publish("orders", TENANT, 1, executor=session)
    with engine.connect() as connection:
        pass
    with pytest.raises(ResourceClosedError, match="closed"):
        hub.publish("orders", TENANT, 1, executor=connection)
    with psycopg.connect(fresh_database_url) as raw:
        pass
    with pytest.raises(psycopg.OperationalError, match="closed"):
        hub.publish("orders", TENANT, 1, executor=raw)
    nothing_but(hub, subscription)


def test_an_error_shows_no_payload(hub: PostgresHub, engine: Engine) -> None:
    with Session(engine) as session:
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            session.execute(text("SELECT nonsense"))
        with pytest.raises((psycopg.Error, psycopg2.Error)) as caught:
            hub.publish("orders", TENANT, "secret", executor=session)
        shown = str(caught.value)
        assert "aborted" in shown and "secret" not in shown and b"secret".hex() not in shown


def test_the_connection_goes_back_to_its_pool_in_order(engine: Engine, hub: PostgresHub) -> None:
    one = create_engine(engine.url, pool_size=1, max_overflow=0)
    for number in range(3):
        with one.begin() as connection:
            hub.publish("orders", TENANT, number, executor=connection)
    with one.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    one.dispose()


def cursor_of(url: str) -> tuple[Any, Any]:
    connection = psycopg2.connect(url, cursor_factory=psycopg2.extras.RealDictCursor)
    return connection, connection.cursor()


def test_a_cursor_of_psycopg2_is_an_executor(
    hub: PostgresHub, subscription: Subscription, fresh_database_url: str
) -> None:
    connection, cursor = cursor_of(fresh_database_url)
    for encoding, strings in (("LATIN1", "on"), ("UTF8", "off")):
        cursor.execute(f"SET client_encoding = '{encoding}'; SET standard_conforming_strings = {strings}")
        hub.publish("orders", TENANT, ODD, executor=cursor)
        hub.publish_many([("orders", TENANT, ODD), ("orders", TENANT, ODD)], executor=cursor)
        nothing_but(hub, subscription)
        connection.commit()
        nothing_but(hub, subscription, ODD, ODD, ODD)
    connection.close()


def test_a_connection_without_standard_conforming_strings_is_an_executor(
    hub: PostgresHub, subscription: Subscription, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL standard_conforming_strings = off"))
        hub.publish("orders", TENANT, ODD, executor=connection)
        hub.publish_many([("orders", TENANT, ODD), ("orders", TENANT, ODD)], executor=connection)
    nothing_but(hub, subscription, ODD, ODD, ODD)


Read = Callable[[PostgresHub, Any], str | None]


@pytest.mark.parametrize("hub", [True], indirect=True, ids=["history"])
def test_the_cursor_is_read_in_the_snapshot_of_a_session(
    hub: PostgresHub, engine: Engine, fresh_database_url: str
) -> None:
    kept = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(kept) as session, kept.connect() as connection:
        before = hub.cursor(executor=session)
        assert hub.cursor(executor=connection) == before
        hub.publish("orders", TENANT, 1)
        assert hub.cursor(executor=session) == hub.cursor(executor=connection) == before
        session.rollback()
        after = hub.cursor(executor=session)
        assert before is not None and after is not None
        assert int(after) > int(before)
        raw, cursor = cursor_of(fresh_database_url)
        assert hub.cursor(executor=cursor) == after  # of dictionaries
        assert hub.cursor(executor=raw.cursor(cursor_factory=psycopg2.extensions.cursor)) == after
        cursor.close()
        raw.close()


def test_the_hubs_own_executor_may_be_a_session(
    subscription: Subscription, hub: PostgresHub, engine: Engine, fresh_database_url: str
) -> None:
    sessions = scoped_session(sessionmaker(engine))
    executor: Executor = sessions
    with PostgresHub(fresh_database_url, executor, history=hub.has_history) as publisher:
        publisher.publish("orders", TENANT, 1)
        nothing_but(hub, subscription)
        sessions.commit()
        nothing_but(hub, subscription, 1)
    sessions.remove()


def in_django(url: str, scenario: str) -> Any:
    """What a scenario of `tests/support/django_executors.py` prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.django_executors", url, scenario],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("hub", [False], indirect=True, ids=["notify"])
@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("before_its_first_query", ["proxy", "wrapper"]),
        ("in_a_transaction", [[], [ODD, 2, 3]]),
        ("rolled_back", []),
        ("savepoints", [1, 4]),
        ("cursors", ["cursor", "debug", [7]]),
        ("broken_transaction", "TransactionManagementError"),
        ("another_thread", "DatabaseError"),
        ("another_database", "Django's connection 'other' is of sqlite: events go through one of PostgreSQL"),
        ("counted_query", [1, ["counted"]]),
        ("server_side_binding", [ODD, ODD, ODD]),
        ("cursor_of_history", [True, True]),
        ("cache", "TypeError"),
    ],
)
def test_djangos_connection_and_cursors_are_executors(
    hub: PostgresHub, fresh_database_url: str, scenario: str, expected: Any
) -> None:
    assert in_django(fresh_database_url, scenario) == expected
