"""A real gunicorn with the plain application, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.gunicorn import GunicornServer

CONFIG = Path(__file__).parent / "apps" / "gunicorn.conf.py"

Serve = Callable[..., GunicornServer]


@pytest.fixture
def serve(fresh_database_url: str) -> Iterator[Serve]:
    """Starts gunicorn with the plain application; each server is stopped after the test."""
    with ExitStack() as stack:

        def start(
            app: str = "tests.acceptance.apps.plain:app",
            env: dict[str, str] | None = None,
            **options: Any,
        ) -> GunicornServer:
            options.setdefault("config", str(CONFIG))
            server = GunicornServer(app, env={"DATABASE_URL": fresh_database_url, **(env or {})}, **options)
            return stack.enter_context(server)

        yield start
