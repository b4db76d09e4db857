"""Backend: what carries a hub's events, and the sink that its listener reports to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from . import envelope
from .attempt import Listener
from .delivery.dispatcher import Dispatcher
from .delivery.intake import LogIntake, TextIntake
from .delivery.log import LogSession, LogStore
from .event import Event
from .executor import Executor
from .lifecycle import Lifecycle
from .payload import JsonDefault
from .topic import Topic

__all__ = ["Backend", "Sink"]


class Sink:
    """Where a listener reports. For the listener's thread, which alone writes the counters; any thread reads them.

    A listener calls `listening` once it hears, `receive` with the texts that it hears, `heartbeat` every now and then,
    and `not_listening` when it has lost its connection. While it waits for something to arrive, it calls `receive` with
    nothing after `pause()` seconds.

    Each text is an envelope (see `envelope.py`). With a log it only says that there is something to read. Its last
    member is the event's number, `"id":"42"`; a text without one counts as an event past the log.
    """

    def __init__(self, lifecycle: Lifecycle, dispatcher: Dispatcher, intake: TextIntake | LogIntake) -> None:
        self._lifecycle = lifecycle
        self._dispatcher = dispatcher
        self._intake = intake
        self.received = self.dead_connections = 0
        self.queue_usage = 0.0

    def listening(self, session: LogSession | None = None) -> bool:
        """What is published from now on is heard. Return whether nothing is missing of what came before. Otherwise
        every consumer has been told to refresh.

        A backend with a log gives the session that reads it, which stays in use until the next call. Blocks while that
        is read. Raises `HubConfigurationError` and what the session raises.
        """
        if self._lifecycle.has_given_up():
            return False  # the intake is another listener's, or will be
        complete = self._intake.catch_up(session)
        again = self._lifecycle.now_listening()
        if again is False:
            self._dispatcher.refresh_early()
        elif again and not self._intake.tells_gap:
            self._dispatcher.gap()
        return complete

    def not_listening(self, error: str, dead: bool = False) -> None:
        """Nothing is heard from now on. `dead`: the server did not answer in time."""
        self.dead_connections += dead
        self._lifecycle.not_listening(error)

    def receive(self, texts: Sequence[str]) -> None:
        """Dispatch a batch of notifications, tell the gaps that are due, and wake the readers. Raises what the session
        raises."""
        self.received += len(texts)
        self._intake.receive(texts)
        self._dispatcher.refresh_waiting()
        self._dispatcher.wake()

    def heartbeat(self, queue_usage: float) -> None:
        """The server has answered. `queue_usage` says how full its notification queue is, from 0 to 1.

        Raises `HubConfigurationError` when the log is another one now.
        """
        self._dispatcher.registry.remove_dropped()
        self.queue_usage = queue_usage
        self._intake.check()

    def pause(self) -> float | None:
        """Seconds until `receive` has to be called even if nothing arrives; None when it need not."""
        return self._dispatcher.pause()


class Backend(ABC):
    """What carries the events of one hub in one process.

    The hub makes one with `new_backend()`, and another one in each forked child, where it `abandon`s the parent's.
    Making one opens nothing and starts nothing. Healing, gaps, replay and counters are the hub's.
    """

    one_process = False
    """Whether events reach this process alone."""

    captures: tuple[Callable[[Sequence[str]], object], ...] = ()
    """What `pgfanout.testing` has called with the texts that were sent."""

    @property
    def log(self) -> LogStore | None:
        """Where events can be read again, if the backend keeps them."""
        return None

    @abstractmethod
    def new_listener(self, sink: Sink) -> Listener:
        """A listener that reports to the sink. The hub runs it in a thread, and makes another one if it ends."""

    @abstractmethod
    def send(self, texts: Sequence[str], executor: Executor | None) -> None:
        """Send the texts, all or none, in their order; in the executor's transaction, if there is one."""

    def compose(self, *event: Any, json_default: JsonDefault | None = None) -> str:
        """The text to send for the arguments of a publish. Raises `InvalidEventError`, `PayloadTooLargeError`."""
        return envelope.compose(*event, json_default=json_default)

    def decompose(self, text: str) -> tuple[Topic, Event]:
        """The topic and the event of a text that `compose` has made."""
        return envelope.decode(text)

    def sent(self, texts: Sequence[str]) -> None:
        """Call this when texts were sent: after the commit, if the backend can see it."""
        for capture in self.captures:
            capture(texts)

    def read_cursor(self, executor: Executor) -> str:
        """Where the log ends, as the executor's transaction sees it."""
        raise NotImplementedError(f"{type(self).__name__} has no log to read a cursor from")

    def close(self, timeout: float) -> None:  # noqa: B027
        """Close what `send` has opened, within `timeout` seconds."""

    def abandon(self) -> None:  # noqa: B027
        """In a forked child: let go of the parent's connections without a word to the server."""
