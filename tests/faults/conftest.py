"""Fixtures for the tests of single faults: servers that may be broken, a gunicorn that tells what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.acceptance.conftest import Serve, serve
from tests.support.gunicorn import GunicornServer
from tests.support.postgres import MakeServer, PostgresServer
from tests.support.replication import REPLICATED, Standby
from tests.support.sse import EventSource

from .worker import TENANT

__all__ = ["serve"]


@pytest.fixture
def pair(make_server: MakeServer) -> Iterator[tuple[PostgresServer, Standby]]:
    """A primary, and a standby that follows it; both run."""
    primary = make_server(hba=REPLICATED)
    primary.start()
    standby = Standby(primary)
    with standby:
        yield primary, standby


@pytest.fixture
def serve_inside(serve: Serve) -> Callable[..., GunicornServer]:
    """`serve` with an application that answers at /inside what the worker holds."""
    return partial(serve, "tests.faults.app:app")


@pytest.fixture(params=["auto", "never"])
def detach(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with detached streams, and with streams that keep their threads."""
    monkeypatch.setenv("PGFANOUT_DETACH", request.param)
    return str(request.param)


Follow = Callable[..., EventSource]


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Opens a stream of a server; closed after the test."""
    with ExitStack() as stack:

        def start(server: GunicornServer, **options: Any) -> EventSource:
            return stack.enter_context(EventSource(f"{server.url}/events?tenant={TENANT}", **options))

        yield start
