"""What all contenders have in common: PostgreSQL, Redis, the C programs; and one contender's run among them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from pgfanout import PostgresHub
from tests.support import postgres
from tests.support.ports import free_port
from tests.support.processes import session

from . import compiler
from .contender import Contender, Launch
from .load import LoadClient, Opening, Window
from .placement import Placement
from .publisher import Publisher
from .redis_server import RedisServer
from .sender import FloorSender, PostgresSender, RedisSender, Sender
from .server import Server

__all__ = ["Run", "World", "missing_reason"]

_SETTLE = 1.0
_PRIME_INTERVAL = 0.05


def missing_reason() -> str | None:
    """Why nothing can be measured here, or None."""
    return compiler.missing_reason() or postgres.missing_reason()


class World:
    """`with` starts and ends what is shared. Redis starts when it is first asked for."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.postgres = postgres.PostgresServer()
        self._stack = contextlib.ExitStack()
        self._redis: RedisServer | None = None
        self._home = Path()

    def __enter__(self) -> World:
        self._home = session.directory("benchmarks")
        self.load = compiler.compile_program("load", self._home)
        self.floor = compiler.compile_program("floor", self._home)
        self.placement.begin()
        self._stack.callback(self.placement.end)
        self._stack.enter_context(self.postgres)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def redis(self) -> RedisServer:
        if self._redis is None:
            self._redis = self._stack.enter_context(RedisServer())
        return self._redis

    @contextlib.contextmanager
    def run(self, contender: Contender, streams: int, buffer_size: int = 32) -> Iterator[Run]:
        """The contender's server, up and settled, with a publisher and a load client that has opened nothing yet."""
        port = free_port()
        launch = Launch(
            port=port,
            streams=streams,
            buffer_size=buffer_size,
            database_url=self.postgres.url(),
            redis_url=self.redis().url if contender.source == "redis" else "",
            floor=self.floor,
            datagrams=self._home / f"datagrams-{port}",
        )
        server = Server(
            contender.command(launch),
            port=port,
            env=contender.env(launch),
            probe=contender.probe,
            placement=self.placement,
        )
        with server, LoadClient(self.load, port) as client:
            sender = self._sender(contender, launch)
            with contextlib.closing(sender):
                time.sleep(_SETTLE)
                listeners = sender.listeners if isinstance(sender, RedisSender) else None
                yield Run(streams, server, client, Publisher(sender), listeners)

    def _sender(self, contender: Contender, launch: Launch) -> Sender:
        if contender.source == "floor":
            return FloorSender(launch.datagrams)
        if contender.source == "redis":
            return RedisSender(launch.redis_url)
        return PostgresSender(PostgresHub(launch.database_url))


class Run:
    """One contender's server with the client that opens `streams` streams to it.

    `listeners` is given for a server that sends nothing, not even the head, before the first event: it tells how many
    streams wait for one.
    """

    def __init__(
        self,
        streams: int,
        server: Server,
        client: LoadClient,
        publisher: Publisher,
        listeners: Callable[[], int] | None = None,
    ) -> None:
        self.streams = streams
        self.server = server
        self.client = client
        self.publisher = publisher
        self._listeners = listeners
        # What the measurements are to tell, and whether another window makes no sense.
        self.problem = ""
        self.is_over = False

    def connect(self) -> Opening:
        """Open the streams. Raises RuntimeError when not one could be opened."""
        self.client.start_opening(self.streams)
        if self._listeners is None:
            opening = self.client.wait_until_open()
        else:
            with self._priming(self._listeners):
                opening = self.client.wait_until_open()
            time.sleep(_SETTLE)
        if opening.refused:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in opening.reasons.items())
            self.problem = f"refused {opening.refused:,} connections ({reasons})"
        if not opening.streams:
            raise RuntimeError(self.problem or "no stream was opened")
        return opening

    def window(self, publish: Callable[[], object], last: int, timeout: float) -> tuple[Window, float]:
        """Publish, the events 1 to `last`, and wait for them; what was received, and the server's CPU seconds.

        A window that stays incomplete is the last one: what is late would be counted in the next.
        """
        self.client.start_window(last)
        before = self.server.cpu()
        publish()
        window = self.client.end_window(timeout)
        cpu = self.server.cpu() - before
        if window.closed:
            self.problem = _joined(self.problem, f"{window.closed:,} streams ended")
        if not window.complete:
            self.is_over = True
            self.problem = _joined(self.problem, "not every stream got the last event")
        return window, cpu

    @contextlib.contextmanager
    def _priming(self, listeners: Callable[[], int]) -> Iterator[None]:
        """Until the block ends, publish an event that counts for nothing whenever more streams have begun to wait.

        The client opens some, and goes on when they are open; so one event for all of those is enough.
        """
        over = threading.Event()

        def prime() -> None:
            seen = primed = 0
            while not over.wait(_PRIME_INTERVAL):
                before, seen = seen, listeners()
                if seen == before and seen > primed:
                    self.publisher.prime()
                    primed = seen

        thread = threading.Thread(target=prime, name="primer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _joined(*problems: str) -> str:
    return "; ".join(filter(None, problems))
