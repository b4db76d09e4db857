"""Fixtures for all tests: PostgreSQL, databases, and the check that a test run leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from .support.need import need
from .support.postgres import PostgresServer, missing_reason, random_name
from .support.processes import session
from .support.wait import eventually

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "default")


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: whoever collects garbage need not look through them each time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Outermost of all fixtures: at the end no thread of a hub and no process of a test is alive."""
    session.begin(in_memory=True)  # a database for a test is made in a fifth of the time that a disk may take
    yield
    try:
        eventually(lambda: not _threads_left() and not session.leftovers(), timeout=5.0, interval=0.1)
    except AssertionError:
        pytest.fail(f"left behind: threads {_threads_left()}, processes {session.leftovers()}", pytrace=False)
    finally:
        session.finish()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that tests share. A test that stops or reconfigures a server starts one of its own."""
    reason = missing_reason()
    need(reason is None, str(reason))
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def database_url(postgres: PostgresServer) -> str:
    """A database that tests share."""
    return postgres.create_database(random_name("shared"))


@pytest.fixture
def fresh_database_url(postgres: PostgresServer) -> Iterator[str]:
    """A database for one test."""
    name = random_name()
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def postgres_of_our_own() -> Iterator[PostgresServer]:
    """A server that the test may stop, kill and start again."""
    reason = missing_reason()
    need(reason is None, str(reason))
    with PostgresServer() as server:
        yield server


Freeze = Callable[..., Callable[[], None]]


@pytest.fixture
def freeze() -> Iterator[Freeze]:
    """Freezes processes by their ids; what it returns, and the end of the test, thaws them."""
    frozen: set[int] = set()

    def thaw() -> None:
        while frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen.pop(), signal.SIGCONT)

    def stop(*pids: int) -> Callable[[], None]:
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            frozen.add(pid)
        return thaw

    yield stop
    thaw()


def _threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pgfanout")]
