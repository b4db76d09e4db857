import contextvars
import threading

from pgfanout.threads import start_thread

request = contextvars.ContextVar("request", default="none")


def test_a_thread_starts_in_an_empty_context() -> None:
    seen: list[str] = []
    request.set("the first visitor's")
    start_thread("pgfanout-test", lambda: seen.append(request.get())).join()
    assert seen == ["none"]


def test_a_thread_is_a_named_daemon_and_gets_its_arguments() -> None:
    seen: list[object] = []

    def work(*args: object) -> None:
        seen.extend([*args, threading.current_thread().name, threading.current_thread().daemon])

    start_thread("pgfanout-test", work, 1, 2).join()
    assert seen == [1, 2, "pgfanout-test", True]
