"""The hooks for gunicorn, without a gunicorn: what a worker's watcher does."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from pgfanout import CLOSE_EVENT, MemoryHub
from pgfanout import gunicorn as hooks
from pgfanout.threads import start_thread

from .support.child import FORKS, in_child

PATIENCE = 20.0
TENANT = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def worker() -> Iterator[SimpleNamespace]:
    """A worker that stops at SIGTERM as gunicorn's do; its parent is that of this process."""
    worker = SimpleNamespace(alive=True, ppid=os.getppid())

    def stop(number: int, frame: object) -> None:
        worker.alive = False

    before = signal.signal(signal.SIGTERM, stop)
    yield worker
    worker.alive = False
    signal.signal(signal.SIGTERM, before)


def test_a_worker_whose_master_had_gone_before_it_was_watched_stops_at_once(
    worker: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    worker.ppid = os.getpid()  # anything but the parent
    with MemoryHub() as hub:
        subscription = hub.subscribe("orders", TENANT)
        start_thread("watcher", hooks._watch, worker, None)
        assert subscription.get(PATIENCE) is CLOSE_EVENT
        assert worker.alive is False
    assert f"gunicorn's master (process {os.getpid()}) has gone" in caplog.text


@pytest.mark.parametrize("known", [True, False], ids=["its master is known", "its master is not known"])
def test_a_worker_whose_master_is_there_is_left_alone_until_it_stops(worker: SimpleNamespace, known: bool) -> None:
    if not known:
        del worker.ppid
    with MemoryHub() as hub:
        subscription = hub.subscribe("orders", TENANT)
        watcher = start_thread("watcher", hooks._watch, worker, None)
        watcher.join(4 * hooks._WATCH_INTERVAL)
        assert watcher.is_alive()
        assert not subscription.closed
        worker.alive = False
        assert subscription.get(PATIENCE) is CLOSE_EVENT
        watcher.join(PATIENCE)
        assert not watcher.is_alive()


def test_a_worker_that_has_left_its_requests_is_not_interrupted(
    worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does then is the application's clean-up."""
    worker.cfg = SimpleNamespace(worker_int=lambda worker: None)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    quitting = hooks._Quitting(worker)
    monkeypatch.setattr(hooks, "_quitting", quitting)
    quitting(signal.SIGQUIT, None)
    hooks.worker_exit(None, worker)
    quitting.interrupt()
    assert sent == []


def test_a_worker_that_is_answering_a_request_is_interrupted(
    worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.cfg = SimpleNamespace(worker_int=lambda worker: None)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    quitting = hooks._Quitting(worker)
    quitting.interrupt()
    quitting(signal.SIGQUIT, None)
    quitting.interrupt()
    assert sent == [signal.SIGQUIT]
    with pytest.raises(SystemExit):
        quitting(signal.SIGQUIT, None)


class Cycle:
    """Garbage that the collector alone finds."""

    def __init__(self) -> None:
        self.itself = self


class Worker:
    """As much of a gthread worker as the hook looks at."""

    alive = True
    log = SimpleNamespace(info=print, error_log=SimpleNamespace(handlers=[]))

    def __init__(self) -> None:
        settings: dict[str, Any] = {"worker_connections": 10, "pre_request": lambda worker, request: None}
        self.cfg = SimpleNamespace(**settings, set=settings.__setitem__)


def frozen_by_the_hook(setting: str | None) -> tuple[int, bool, str]:
    """How many objects are frozen, whether garbage was collected before, and what was logged."""
    with mock.patch.dict(os.environ):
        os.environ.pop("PGFANOUT_GC_FREEZE", None)
        if setting is not None:
            os.environ["PGFANOUT_GC_FREEZE"] = setting
        before = gc.get_freeze_count()
        garbage = weakref.ref(Cycle())
        other_tests = mock.patch.object(hooks, "live_hubs", list)  # their hubs have their own warnings
        with other_tests, mock.patch.object(hooks.logger, "warning") as warning:
            hooks.post_worker_init(Worker())
        return gc.get_freeze_count() - before, garbage() is None, str(warning.call_args_list)


@FORKS
def test_what_the_application_has_loaded_is_frozen_if_that_is_wanted() -> None:
    count, collected, warnings = in_child(lambda: frozen_by_the_hook("1"))
    assert count > 100
    assert collected
    assert warnings == "[]"


@FORKS
@pytest.mark.parametrize(("setting", "warned"), [(None, False), ("0", False), ("", False), ("yes", True)])
def test_nothing_is_frozen_unless_that_is_wanted(setting: str | None, warned: bool) -> None:
    count, _, warnings = in_child(lambda: frozen_by_the_hook(setting))
    assert count <= 0  # of those that something else has frozen some may have gone
    assert ("PGFANOUT_GC_FREEZE" in warnings) == warned
