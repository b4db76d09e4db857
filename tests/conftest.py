"""Fixtures for all tests: PostgreSQL, databases, and the check that a test run leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from .support.need import need
from .support.postgres import MakeServer, PostgresServer, missing_reason, random_name
from .support.processes import session
from .support.wait import eventually

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "default")


_OF_FIXTURES = {
    "postgres": {"postgres_programs"},
    "server": {"load_client"},
    "browser": {"any_browser", "browser", "firefox"},
    "each_browser": {"any_browser"},
}
_NOT_UNIT = ("postgres", "server", "browser", "faults", "slow")
_OF_FOLDERS = {"acceptance": "server", "faults": "faults", "support": "server"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder and by the fixtures that it asks for; a test without any mark is a `unit` test."""
    tests = Path(__file__).parent
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        marks = [mark for mark, fixtures in _OF_FIXTURES.items() if asked & fixtures]
        marks += [mark for folder, mark in _OF_FOLDERS.items() if item.path.is_relative_to(tests / folder)]
        for mark in marks:
            item.add_marker(mark)
        if not any(item.get_closest_marker(mark) for mark in _NOT_UNIT):
            item.add_marker("unit")


def pytest_runtest_setup(item: pytest.Item) -> None:
    session.starts_programs = item.get_closest_marker("unit") is None
    _freeze_what_stays(item.path)


@functools.lru_cache(maxsize=1)
def _freeze_what_stays(module: Path) -> None:
    """Before each module, exempt from garbage collection what pytest and Hypothesis keep to the end of the run.

    Some tests collect garbage. Without this each collection would look through hundreds of thousands of objects.
    """
    gc.collect()
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
def postgres_programs() -> None:
    """PostgreSQL's programs are there. Whatever asks for this, however indirectly, is marked `postgres`."""
    reason = missing_reason()
    need(reason is None, str(reason))


@pytest.fixture(scope="session")
def postgres(postgres_programs: None) -> Iterator[PostgresServer]:
    """The server that tests share. A test that stops or reconfigures a server starts one of its own."""
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
def make_server(postgres_programs: None) -> Iterator[MakeServer]:
    """Makes PostgreSQL servers that nobody shares, and starts none; each is closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> PostgresServer:
            server = PostgresServer(**options)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def postgres_of_our_own(make_server: MakeServer) -> PostgresServer:
    """A server that the test may stop, kill and start again."""
    server = make_server()
    server.start()
    return server


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
