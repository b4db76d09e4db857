"""Lifecycle: starting, giving up, healing and closing, with a listener that does as it is told."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pgfanout import lifecycle as lifecycle_module
from pgfanout.errors import HubClosedError, HubConfigurationError, HubTimeoutError
from pgfanout.lifecycle import Lifecycle
from pgfanout.threads import start_thread

from .support.wait import eventually

# Private members: that a thread waits shows nowhere else.

PATIENCE = 20.0


class ObedientListener:
    """A listener whose thread does what the test says, when it says it."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        self.steps: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def run(self) -> None:
        self.thread = threading.current_thread()
        self.running.set()
        while (step := self.steps.get()) is not None:
            step()

    def stop(self) -> None:
        self.stopped.set()
        self.steps.put(None)

    def abandon(self) -> None:
        """There is no connection."""

    def do(self, step: Callable[..., Any], *arguments: object) -> Any:
        """Have the listener's thread call something, and return what it returned."""
        done: Future[Any] = Future()
        self.steps.put(lambda: done.set_result(step(*arguments)))
        return done.result(PATIENCE)

    def fail(self, error: Exception) -> None:
        """Have `run` raise."""

        def step() -> None:
            raise error

        self.steps.put(step)


class StubbornListener(ObedientListener):
    """A listener that notes that it is to stop, and doesn't."""

    def stop(self) -> None:
        self.stopped.set()


class World:
    """A lifecycle, the listeners that it made, and threads to call it from."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.kind: type[ObedientListener] = ObedientListener
        self.listeners: list[ObedientListener] = []
        self.lifecycle = Lifecycle(self._new_listener)
        self.submit = pool.submit

    def _new_listener(self) -> ObedientListener:
        listener = self.kind()
        self.listeners.append(listener)
        return listener

    @property
    def listener(self) -> ObedientListener:
        """The newest one, once it runs."""
        eventually(lambda: self.listeners, interval=0.001)
        assert self.listeners[-1].running.wait(PATIENCE)
        return self.listeners[-1]

    def start(self, timeout: float = PATIENCE) -> Future[None]:
        """`start` in a thread; returns when that thread waits."""
        before = self.lifecycle._waiting
        future = self.submit(self.lifecycle.start, timeout)
        eventually(lambda: self.lifecycle._waiting > before or future.done(), interval=0.001)
        return future

    def started(self) -> ObedientListener:
        """A listener that listens."""
        future = self.start()
        self.listener.do(self.lifecycle.now_listening)
        future.result(PATIENCE)
        return self.listener


@pytest.fixture
def world() -> Iterator[World]:
    with ThreadPoolExecutor(16) as pool:
        world = World(pool)
        yield world
        for listener in world.listeners:
            listener.steps.put(None)
        world.lifecycle.close(PATIENCE)
    for listener in world.listeners:
        if listener.thread is not None and listener.thread.name == "pgfanout-listener":
            listener.thread.join(PATIENCE)


def test_a_new_lifecycle_has_done_nothing(world: World) -> None:
    lifecycle = world.lifecycle
    assert world.listeners == []
    assert (lifecycle.listening, lifecycle.closed, lifecycle.reconnects, lifecycle.last_error) == (False, False, 0, "")


def test_start_returns_once_the_listener_listens(world: World) -> None:
    future = world.start()
    assert not future.done()
    assert world.listener.do(world.lifecycle.now_listening) is False
    assert future.result(PATIENCE) is None
    assert world.lifecycle.listening


def test_the_listener_runs_in_a_named_daemon_thread(world: World) -> None:
    thread = world.started().thread
    assert thread is not None
    assert (thread.name, thread.daemon) == ("pgfanout-listener", True)


def test_starting_again_makes_no_second_listener(world: World) -> None:
    world.started()
    world.lifecycle.start(0)
    assert len(world.listeners) == 1


def test_threads_that_start_at_once_share_one_listener(world: World) -> None:
    together = threading.Barrier(8, timeout=PATIENCE)

    def start() -> None:
        together.wait()
        world.lifecycle.start(PATIENCE)

    futures = [world.submit(start) for _ in range(8)]
    world.listener.do(world.lifecycle.now_listening)
    assert [future.result(PATIENCE) for future in futures] == [None] * 8
    assert len(world.listeners) == 1


def test_a_start_whose_time_is_over_says_so_and_stops_the_listener(world: World) -> None:
    with pytest.raises(HubTimeoutError, match="^not listening after 0 s: no answer yet$"):
        world.lifecycle.start(0)
    assert world.listeners[0].stopped.is_set()
    assert not world.lifecycle.listening


def test_a_start_whose_time_is_over_tells_the_last_obstacle(world: World) -> None:
    waits = world.start()
    world.listener.do(world.lifecycle.not_listening, "connection refused")
    with pytest.raises(HubTimeoutError, match="^not listening after 0 s: connection refused$"):
        world.lifecycle.start(0)
    world.listener.do(world.lifecycle.now_listening)
    waits.result(PATIENCE)


def test_one_start_whose_time_is_over_does_not_disturb_another_that_waits(world: World) -> None:
    patient = world.start()
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    assert not world.listener.stopped.is_set()
    world.listener.do(world.lifecycle.now_listening)
    patient.result(PATIENCE)
    assert len(world.listeners) == 1


def test_after_a_start_that_timed_out_the_next_one_tries_anew(world: World) -> None:
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    world.started()
    assert len(world.listeners) == 2
    assert world.lifecycle.listening


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_a_time_without_an_end_waits_and_then_closes(world: World, timeout: float) -> None:
    future = world.start(timeout)
    world.listener.do(world.lifecycle.now_listening)
    future.result(PATIENCE)
    world.lifecycle.close(timeout)


@pytest.mark.parametrize("timeout", [-1.0, 0.001])
def test_a_time_of_nothing_or_next_to_it_is_over(world: World, timeout: float) -> None:
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(timeout)


def test_a_forsaken_listener_that_comes_up_late_does_not_count(world: World) -> None:
    world.kind = StubbornListener
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    assert world.listener.do(world.lifecycle.now_listening) is None
    assert not world.lifecycle.listening
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)


def test_a_forsaken_listener_can_neither_speak_for_its_successor_nor_against_it(world: World) -> None:
    world.kind = StubbornListener
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    forsaken = world.listener
    world.started()
    assert forsaken.do(world.lifecycle.now_listening) is None
    forsaken.do(world.lifecycle.not_listening, "too late")
    lifecycle = world.lifecycle
    assert (lifecycle.listening, lifecycle.reconnects, lifecycle.last_error) == (True, 0, "")


def test_a_forsaken_listener_that_ends_late_does_not_end_its_successor(world: World) -> None:
    world.kind = StubbornListener
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    forsaken = world.listener
    successor = world.started()
    forsaken.steps.put(None)
    assert forsaken.thread is not None
    forsaken.thread.join(PATIENCE)
    assert world.lifecycle.listening
    assert successor.do(world.lifecycle.now_listening) is True


def test_what_waiting_will_not_cure_is_raised_at_once(world: World) -> None:
    future = world.start()
    world.listener.fail(HubConfigurationError("wrong password"))
    with pytest.raises(HubConfigurationError, match="^wrong password$"):
        future.result(PATIENCE)


def test_every_start_that_waits_is_told_what_waiting_will_not_cure(world: World) -> None:
    futures = [world.start() for _ in range(3)]
    world.listener.fail(HubConfigurationError("wrong password"))
    errors = [future.exception(PATIENCE) for future in futures]
    assert [str(error) for error in errors] == ["wrong password"] * 3
    assert len({id(error) for error in errors}) == 3  # one each: a traceback belongs to one thread


def test_once_the_configuration_is_right_start_succeeds(world: World) -> None:
    future = world.start()
    world.listener.fail(HubConfigurationError("wrong password"))
    with pytest.raises(HubConfigurationError):
        future.result(PATIENCE)
    world.started()
    assert len(world.listeners) == 2
    assert world.lifecycle.listening


def test_a_thread_that_cannot_be_started_spoils_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            world.lifecycle.start(PATIENCE)
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    assert len(world.listeners) == 2
    assert world.listener.stopped.is_set()  # nobody waits for it, and nobody is thought to
    world.started()
    assert world.lifecycle.listening


def test_listening_again_is_told_from_listening_for_the_first_time(world: World) -> None:
    listener = world.started()
    listener.do(world.lifecycle.not_listening, "the server is gone")
    assert not world.lifecycle.listening
    assert listener.do(world.lifecycle.now_listening) is True
    assert (world.lifecycle.listening, world.lifecycle.reconnects) == (True, 1)


def test_the_last_error_outlives_the_recovery(world: World) -> None:
    listener = world.started()
    listener.do(world.lifecycle.not_listening, "the server is gone")
    listener.do(world.lifecycle.now_listening)
    assert world.lifecycle.last_error == "the server is gone"


def test_a_start_during_an_outage_returns_at_once(world: World) -> None:
    listener = world.started()
    listener.do(world.lifecycle.not_listening, "the server is gone")
    world.lifecycle.start(0)
    assert not listener.stopped.is_set()


def test_since_is_when_listening_became_what_it_is(world: World) -> None:
    lifecycle = world.lifecycle
    made = lifecycle.since
    listener = world.started()
    began = lifecycle.since
    listener.do(lifecycle.now_listening)
    assert made <= began == lifecycle.since <= time.time()
    listener.do(lifecycle.not_listening, "the server is gone")
    assert began <= lifecycle.since <= time.time()


def test_only_the_listener_is_believed_that_it_listens(world: World) -> None:
    world.start(0)
    assert world.lifecycle.now_listening() is None
    assert not world.lifecycle.listening


def test_only_the_listener_is_believed_that_it_does_not_listen(world: World) -> None:
    world.started()
    world.lifecycle.not_listening("a rumour")
    assert (world.lifecycle.listening, world.lifecycle.last_error) == (True, "")


def test_close_stops_the_listener_and_waits_for_its_thread(world: World) -> None:
    listener = world.started()
    world.lifecycle.close(PATIENCE)
    assert listener.stopped.is_set()
    assert (world.lifecycle.closed, world.lifecycle.listening) == (True, False)
    assert listener.thread is not None
    listener.thread.join(PATIENCE)
    assert not listener.thread.is_alive()


def test_closing_again_is_harmless(world: World) -> None:
    world.started()
    world.lifecycle.close(PATIENCE)
    world.lifecycle.close(PATIENCE)
    assert world.lifecycle.closed


def test_several_threads_may_close_at_once(world: World) -> None:
    world.started()
    together = threading.Barrier(6, timeout=PATIENCE)

    def close() -> None:
        together.wait()
        world.lifecycle.close(PATIENCE)

    futures = [world.submit(close) for _ in range(6)]
    assert [future.result(PATIENCE) for future in futures] == [None] * 6


def test_closing_before_any_start_is_enough(world: World) -> None:
    world.lifecycle.close(0)
    assert world.lifecycle.closed
    assert world.listeners == []


@pytest.mark.parametrize("began", [False, True], ids=["never started", "started"])
def test_what_was_closed_can_neither_start_nor_run(world: World, began: bool) -> None:
    if began:
        world.started()
    world.lifecycle.close(PATIENCE)
    calls: list[Callable[[], None]] = [
        lambda: world.lifecycle.start(PATIENCE),
        world.lifecycle.run,
        world.lifecycle.check_open,
    ]
    for call in calls:
        with pytest.raises(HubClosedError):
            call()
    assert len(world.listeners) == began


def test_a_start_that_waits_learns_of_the_close(world: World) -> None:
    future = world.start()
    world.lifecycle.close(PATIENCE)
    with pytest.raises(HubClosedError):
        future.result(PATIENCE)


def test_a_listener_that_comes_up_while_the_hub_closes_is_not_listening(world: World) -> None:
    world.kind = StubbornListener
    running = world.submit(world.lifecycle.run)
    listener = world.listener
    closing = world.submit(world.lifecycle.close, PATIENCE)
    assert listener.stopped.wait(PATIENCE)
    listener.do(world.lifecycle.now_listening)
    assert not world.lifecycle.listening
    listener.steps.put(None)
    closing.result(PATIENCE)
    assert running.result(PATIENCE) is None


def test_a_listener_that_does_not_stop_is_left_behind_with_a_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.kind = StubbornListener
    world.started()
    with caplog.at_level(logging.WARNING, "pgfanout"):
        world.lifecycle.close(0)
    (message,) = caplog.messages
    assert "listener" in message
    assert "did not stop within 0 s" in message


def test_a_listener_that_stops_is_no_reason_for_a_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.started()
    world.lifecycle.close(PATIENCE)
    assert caplog.messages == []


def test_the_listener_itself_may_close(world: World) -> None:
    listener = world.started()
    listener.do(world.lifecycle.close, PATIENCE)
    assert world.lifecycle.closed
    assert listener.thread is not None
    listener.thread.join(PATIENCE)
    assert not listener.thread.is_alive()


def test_run_listens_in_the_calling_thread_until_the_close(world: World) -> None:
    future = world.submit(world.lifecycle.run)
    listener = world.listener
    listener.do(world.lifecycle.now_listening)
    assert world.lifecycle.listening
    assert listener.thread is not None
    assert listener.thread.name != "pgfanout-listener"
    assert not future.done()
    world.lifecycle.close(PATIENCE)
    assert future.result(PATIENCE) is None


def test_run_waits_with_a_listener_that_was_started_already(world: World) -> None:
    world.started()
    future = world.submit(world.lifecycle.run)
    eventually(lambda: world.lifecycle._waiting == 1, interval=0.001)
    assert not future.done()
    world.lifecycle.close(PATIENCE)
    assert future.result(PATIENCE) is None
    assert len(world.listeners) == 1


def test_run_raises_what_waiting_will_not_cure(world: World) -> None:
    future = world.submit(world.lifecycle.run)
    world.listener.fail(HubConfigurationError("wrong password"))
    with pytest.raises(HubConfigurationError, match="^wrong password$"):
        future.result(PATIENCE)


def test_run_is_told_what_a_started_listener_fails_of(world: World) -> None:
    starting = world.start()
    future = world.submit(world.lifecycle.run)
    eventually(lambda: world.lifecycle._waiting == 2, interval=0.001)
    world.listener.fail(HubConfigurationError("wrong password"))
    for each in (starting, future):
        with pytest.raises(HubConfigurationError, match="^wrong password$"):
            each.result(PATIENCE)


def test_a_start_whose_time_is_over_does_not_end_a_run(world: World) -> None:
    future = world.submit(world.lifecycle.run)
    listener = world.listener
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    assert not listener.stopped.is_set()
    listener.do(world.lifecycle.now_listening)
    world.lifecycle.start(0)
    world.lifecycle.close(PATIENCE)
    assert future.result(PATIENCE) is None


def test_a_start_whose_time_is_over_leaves_its_listener_to_a_run_that_waits_with_it(world: World) -> None:
    starting = world.start()
    future = world.submit(world.lifecycle.run)
    eventually(lambda: world.lifecycle._waiting == 2, interval=0.001)
    listener = world.listener
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    assert not listener.stopped.is_set()
    listener.do(world.lifecycle.now_listening)
    starting.result(PATIENCE)
    world.lifecycle.close(PATIENCE)
    assert future.result(PATIENCE) is None


def test_once_a_run_has_failed_a_start_whose_time_is_over_stops_its_listener(world: World) -> None:
    future = world.submit(world.lifecycle.run)
    world.listener.fail(HubConfigurationError("wrong password"))
    future.exception(PATIENCE)
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0)
    assert world.listeners[-1].stopped.is_set()


# Healing.


def failed(world: World, error: Exception) -> ObedientListener:
    """Have the newest listener fail, and return its successor."""
    before = world.listener
    before.fail(error)
    eventually(lambda: world.listeners[-1] is not before)
    return world.listener


@pytest.mark.parametrize("error", [ConnectionError("cut"), KeyError("bug"), HubConfigurationError("a standby")])
def test_a_listener_that_fails_after_it_has_listened_is_followed_by_another(world: World, error: Exception) -> None:
    first = world.started()
    second = failed(world, error)
    assert not world.lifecycle.listening
    assert world.lifecycle.last_error
    assert second.thread is first.thread
    assert second.do(world.lifecycle.now_listening) is True
    assert (world.lifecycle.listening, world.lifecycle.reconnects) == (True, 1)


def test_a_listener_that_ends_by_itself_is_followed_by_another(world: World) -> None:
    first = world.started()
    first.steps.put(None)
    eventually(lambda: len(world.listeners) == 2)
    assert world.lifecycle.last_error == "the listener has ended"


def test_a_failure_is_logged_with_its_traceback_and_at_a_bounded_rate(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.started()
    for _ in range(3):
        failed(world, LookupError("bug"))
    (record,) = [record for record in caplog.records if "the listener failed" in record.message]
    assert record.exc_info


def test_a_log_handler_that_fails_does_not_end_the_listener(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ValueError("a filter of the application's")

    monkeypatch.setattr(logging.getLogger("pgfanout"), "error", fail)
    world.started()
    failed(world, LookupError("bug"))
    failed(world, HubConfigurationError("a standby"))


def test_close_ends_the_pause_between_two_listeners(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle_module, "_FIRST_PAUSE", 1e6)
    first = world.started()
    first.fail(ConnectionError("cut"))
    eventually(lambda: not world.lifecycle.listening)
    world.lifecycle.close(PATIENCE)
    assert first.thread is not None
    first.thread.join(PATIENCE)
    assert not first.thread.is_alive()
    assert len(world.listeners) == 1


def test_a_start_that_is_still_waiting_survives_a_failure(world: World) -> None:
    future = world.start()
    second = failed(world, ConnectionError("cut"))
    second.do(world.lifecycle.now_listening)
    assert future.result(PATIENCE) is None


def test_the_end_of_a_wrong_configuration_is_logged_where_it_was(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.lifecycle.keep_trying()
    second = failed(world, HubConfigurationError("check the password"))
    second.do(world.lifecycle.now_listening)
    second.do(world.lifecycle.now_listening)
    begin, end = caplog.messages
    assert "check the password" in begin
    assert end.startswith("the hub listens now, after ")


# In the background.


def test_what_is_to_go_on_trying_outlives_a_start_whose_time_is_over(world: World) -> None:
    world.lifecycle.keep_trying()
    with pytest.raises(HubTimeoutError):
        world.lifecycle.start(0.001)
    assert not world.listener.stopped.is_set()
    world.listener.do(world.lifecycle.now_listening)
    assert world.lifecycle.listening
    assert len(world.listeners) == 1


def test_what_is_to_go_on_trying_outlives_what_waiting_will_not_cure(world: World) -> None:
    world.lifecycle.keep_trying()
    second = failed(world, HubConfigurationError("a standby"))
    second.do(world.lifecycle.now_listening)
    assert world.lifecycle.listening


def test_a_start_is_told_what_waiting_will_not_cure_though_the_listener_goes_on(world: World) -> None:
    world.lifecycle.keep_trying()
    future = world.start()
    failed(world, HubConfigurationError("a standby"))
    with pytest.raises(HubConfigurationError, match="a standby"):
        future.result(PATIENCE)


def test_going_on_begins_anew_where_an_attempt_has_just_been_given_up(world: World) -> None:
    future = world.start()
    world.listener.fail(HubConfigurationError("wrong password"))
    with pytest.raises(HubConfigurationError):
        future.result(PATIENCE)
    world.lifecycle.keep_trying()
    eventually(lambda: len(world.listeners) == 2)
    world.listener.do(world.lifecycle.now_listening)
    world.lifecycle.start(PATIENCE)


def test_what_is_closed_does_not_go_on(world: World) -> None:
    world.lifecycle.close(PATIENCE)
    with pytest.raises(HubClosedError):
        world.lifecycle.keep_trying()
    assert world.listeners == []


# The first start, in threads of a server.


def test_the_first_start_waits_until_the_hub_listens(world: World) -> None:
    future = world.submit(world.lifecycle.await_first_start, PATIENCE)
    world.listener.do(world.lifecycle.now_listening)
    assert future.result(PATIENCE) is True


def test_the_first_start_waits_no_longer_than_the_first_attempt(world: World) -> None:
    future = world.submit(world.lifecycle.await_first_start, 1e6)
    world.listener.do(world.lifecycle.not_listening, "connection refused")
    assert future.result(PATIENCE) is False
    assert world.lifecycle.await_first_start(1e6) is False


def test_only_one_thread_of_the_process_waits_for_a_first_start(world: World) -> None:
    future = world.submit(world.lifecycle.await_first_start, 1e6)
    eventually(lambda: lifecycle_module._first_wait.locked())
    other = Lifecycle(ObedientListener)
    assert world.lifecycle.await_first_start(1e6) is False
    assert other.await_first_start(1e6) is False
    assert not future.done()
    other.close(PATIENCE)
    world.listener.do(world.lifecycle.now_listening)
    assert future.result(PATIENCE) is True
    assert world.lifecycle.await_first_start(1e6) is True


def test_a_first_start_learns_of_the_close(world: World) -> None:
    future = world.submit(world.lifecycle.await_first_start, 1e6)
    eventually(lambda: lifecycle_module._first_wait.locked())
    world.lifecycle.close(PATIENCE)
    assert future.result(PATIENCE) is False
    with pytest.raises(HubClosedError):
        world.lifecycle.await_first_start(1e6)


def test_after_an_outage_nobody_waits_for_the_hub(world: World) -> None:
    listener = world.started()
    listener.do(world.lifecycle.not_listening, "cut")
    assert world.lifecycle.await_first_start(1e6) is False
    assert world.lifecycle.has_listened


# What a signal handler raises.


def test_an_error_while_the_thread_starts_leaves_one_listener(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler's may come while `Thread.start` waits for the thread."""

    def start_and_fail(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
        thread = start_thread(name, target, *arguments)
        started.append(thread)
        raise TimeoutError("alarm")

    started: list[threading.Thread] = []
    monkeypatch.setattr(lifecycle_module, "start_thread", start_and_fail)
    with pytest.raises(TimeoutError, match="alarm"):
        world.lifecycle.start(PATIENCE)
    monkeypatch.undo()
    world.started()
    running = [listener for listener in world.listeners if listener.running.is_set() and not listener.stopped.is_set()]
    assert len(running) == 1
    world.lifecycle.close(PATIENCE)
    for thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()
