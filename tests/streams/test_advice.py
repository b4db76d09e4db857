"""Advice: which servers are warned of, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgfanout import MemoryHub
from pgfanout.streams import StreamEndpoint, advice
from pgfanout.streams import limiter as limiter_module

# Private members: what a process was told already, and whether the server has called its hooks.

BROWSER = {"HTTP_ACCEPT": "text/event-stream", "REQUEST_METHOD": "GET", "REMOTE_ADDR": "192.0.2.1"}
GUNICORN = {"SERVER_SOFTWARE": "gunicorn/27.0.1", "wsgi.multiprocess": True}
WERKZEUG = {"SERVER_SOFTWARE": "Werkzeug/3.1", "wsgi.multiprocess": False}
HOOKS, MEMORY = "post_worker_init, worker_exit", "memory hub"


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server's hooks were called, and nobody was warned of anything."""
    monkeypatch.setattr(limiter_module, "_told", False)
    advice._warn_once.cache_clear()
    yield
    advice._warn_once.cache_clear()


def warnings(caplog: pytest.LogCaptureFixture, about: str) -> int:
    return sum(about in message for message in caplog.messages)


def advised(environ: dict[str, Any], *, one_process: bool = False) -> None:
    for _ in range(2):
        advice.advise(environ, one_process=one_process)


def test_gunicorn_without_the_hooks_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    advised(GUNICORN)
    assert len(caplog.messages) == warnings(caplog, HOOKS) == 1


@pytest.mark.parametrize("environ", [{}, WERKZEUG], ids=["none", "werkzeug"])
def test_another_server_needs_no_hooks(environ: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    advised(environ)
    assert caplog.messages == []


def test_gunicorn_with_the_hooks_is_no_reason_for_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter_module, "_told", True)
    advised(GUNICORN)
    assert caplog.messages == []


def test_a_memory_hub_in_development_is_told_once_that_it_is_alone(caplog: pytest.LogCaptureFixture) -> None:
    advised(WERKZEUG, one_process=True)
    assert len(caplog.messages) == warnings(caplog, "this process alone. That is enough for development") == 1


def test_a_memory_hub_in_several_processes_loses_events_and_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    advised(GUNICORN, one_process=True)
    assert warnings(caplog, "this server has several processes") == 1


def test_a_test_client_is_no_server(caplog: pytest.LogCaptureFixture) -> None:
    advised({}, one_process=True)
    assert caplog.messages == []


def test_a_stream_brings_the_advice(caplog: pytest.LogCaptureFixture) -> None:
    with MemoryHub() as hub:
        endpoint = StreamEndpoint(hub)
        for environ in (BROWSER, {**BROWSER, **WERKZEUG}):
            answer = endpoint.answer(environ, "orders", "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11")
            answer.body.close()  # type: ignore[attr-defined]
            assert warnings(caplog, MEMORY) == (environ is not BROWSER)
