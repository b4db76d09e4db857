"""A TCP proxy for tests, on a loopback port, which does to connections what networks do to them."""

from __future__ import annotations

import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from urllib.parse import urlsplit

from .ports import LOOPBACK, free_port
from .tcp_link import Link, Rules

_PATIENCE = 10.0


class TcpProxy:
    """Passes connections on to `host` and `port`, an IPv4 address. The constructor starts nothing; `with` does.

    Every method may be called from any thread, and has taken effect when it returns: one daemon thread does it all,
    between two rounds of reading and writing. What they set adds up until `heal`. A reset of one side is passed on to
    the other at once, ahead of what is held back.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = free_port()
        self._target = (host, port)
        self._rules = Rules()
        self._links: set[Link] = set()
        self._corrupting = self._timing = self._closing = False
        self._changes: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> TcpProxy:
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=1024)
        self._listener.setblocking(False)
        self._ear, self._bell = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._ear, selectors.EVENT_READ, self._hear)
        self._thread = threading.Thread(target=self._run, name=f"tcp-proxy-{self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return LOOPBACK, self.port

    @property
    def connections(self) -> int:
        """How many connections are open. One that ended while the proxy was frozen counts until `heal`."""
        return len(self._links)

    def through(self, url: str) -> str:
        """The URL with the proxy's host and port in it."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{LOOPBACK}:{self.port}").geturl()

    def retarget(self, host: str, port: int) -> None:
        """Pass new connections on to another server."""
        self._apply(lambda: setattr(self, "_target", (host, port)))

    def cut(self) -> None:
        """End every open connection with a reset of both sides."""
        self._apply(self._cut)

    def strand(self) -> None:
        """Pass nothing on for the connections that are open, not even after `heal`; new ones are as they should be.

        As when a firewall has forgotten them. One of which a side ends is closed.
        """
        self._apply(self._strand)

    def freeze(self) -> None:
        """No byte, FIN or reset passes any more. New connections are taken, and are as silent."""
        self._set(frozen=True)

    def delay(self, seconds: float) -> None:
        """Pass each chunk that arrives from now on so much later, in order."""
        self._set(delay=seconds)

    def dribble(self, size: int, pause: float) -> None:
        """Pass bytes on in pieces of `size`, with `pause` seconds between them, in each direction."""
        assert size > 0
        self._set(size=size, pause=pause)

    def refuse(self) -> None:
        """Close new connections at once; those that are open go on."""
        self._set(refusing=True)

    def corrupt(self, old: bytes, new: bytes, times: int = 1) -> None:
        """Replace the next occurrences of `old` in what servers send, wherever the chunks' borders lie.

        To see those that lie across a border, the end of a chunk that might be the start of `old` is held back until
        more bytes of that connection arrive, or the last replacement is done.
        """
        assert old and len(old) == len(new)
        self._set(old=old, new=new, times=times)

    def heal(self) -> None:
        """Back to normal; what was held back is passed on at once."""
        self._apply(self._heal)

    def close(self) -> None:
        """End the proxy and every connection. Idempotent."""
        if self._thread is None or not self._thread.is_alive():
            return
        self._apply(lambda: setattr(self, "_closing", True))
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive(), f"the proxy's thread did not end within {_PATIENCE} s"

    def _set(self, **rules: float | bytes) -> None:
        def change() -> None:
            if "old" in rules:
                self._release(at_once=False)
            for name, value in rules.items():
                setattr(self._rules, name, value)
            self._corrupting = self._rules.times > 0
            self._timing = self._timing or bool(self._rules.delay or self._rules.size)
            self._watch_all()

        self._apply(change)

    def _apply(self, change: Callable[[], None]) -> None:
        """Have the proxy's thread do it, and wait for that; before the start there is no thread to ask."""
        if self._thread is None:
            return change()
        done = threading.Event()
        self._changes.put((change, done))
        try:
            self._bell.send(b"!")
        except OSError:  # it has ended, perhaps by this very change, which it found before the bell rang
            if not done.is_set():
                raise RuntimeError("the proxy is closed") from None
        if not done.wait(_PATIENCE):
            raise RuntimeError(f"the proxy did not obey within {_PATIENCE} s")
        return None

    # What follows runs in the proxy's thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, mask in self._selector.select(self._time_left()):
                    key.data(mask)
                if self._corrupting and not self._rules.times:
                    self._corrupting = False
                    self._release(at_once=False)
                self._push_due()
                self._obey()
        finally:
            for link in list(self._links):
                self._end(link, reset=False)
            for own in (self._selector, self._listener, self._ear, self._bell):
                own.close()

    def _hear(self, mask: int) -> None:
        self._ear.recv(4096)

    def _obey(self) -> None:
        while not self._changes.empty():
            change, done = self._changes.get()
            change()
            done.set()

    def _accept(self, mask: int = 0) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            if self._rules.refusing:
                client.close()
            else:
                link = Link(client, self._rules)
                self._links.add(link)
                self._watch(link)

    def _serve(self, link: Link, end: socket.socket, mask: int) -> None:
        if link.closed:  # in this very round
            return
        try:
            link.serve(end, mask)
        except OSError:
            self._end(link, reset=True)
        else:
            self._watch(link)

    def _watch(self, link: Link) -> None:
        """Wait for what the link waits for; connect it, or end it, when its time has come."""
        frozen = self._rules.frozen
        try:
            if not (link.started or frozen):
                link.connect(self._target)
        except OSError:
            self._end(link, reset=True)
            return
        if link.finished and not frozen:
            self._end(link, reset=False)
            return
        for end, mask in link.interests():
            self._select(end, 0 if frozen else mask, link)

    def _watch_all(self) -> None:
        for link in list(self._links):
            self._watch(link)

    def _select(self, end: socket.socket, mask: int, link: Link) -> None:
        key = self._selector.get_map().get(end)
        if key is None:
            if mask:
                self._selector.register(end, mask, partial(self._serve, link, end))
        elif not mask:
            self._selector.unregister(end)
        elif key.events != mask:
            self._selector.modify(end, mask, key.data)

    def _end(self, link: Link, *, reset: bool) -> None:
        for end in (link.client, link.server):
            self._select(end, 0, link)
        link.close(reset=reset)
        self._links.discard(link)

    def _times(self) -> list[tuple[float, Link]]:
        if self._rules.frozen or not self._timing:
            return []
        return [(pipe.when, link) for link in self._links for pipe in link.pipes if pipe.when is not None]

    def _time_left(self) -> float | None:
        times = self._times()
        return max(0.0, min(when for when, _ in times) - time.monotonic()) if times else None

    def _push_due(self) -> None:
        now = time.monotonic()
        for when, link in self._times():
            if when <= now:
                self._push(link)

    def _push(self, link: Link) -> None:
        if link.closed:  # by its other direction
            return
        try:
            for pipe in link.pipes:
                pipe.push()
        except OSError:
            self._end(link, reset=True)
        else:
            self._watch(link)

    def _release(self, *, at_once: bool) -> None:
        for link in list(self._links):
            try:
                for pipe in link.pipes:
                    pipe.release(at_once=at_once)
            except OSError:
                self._end(link, reset=True)

    def _cut(self) -> None:
        self._accept()  # those that wait for it are open as well, for their clients
        for link in list(self._links):
            self._end(link, reset=True)

    def _strand(self) -> None:
        for link in self._links:
            link.strand()
        self._watch_all()

    def _heal(self) -> None:
        for name, value in vars(Rules()).items():
            setattr(self._rules, name, value)
        self._corrupting = self._timing = False
        self._release(at_once=True)
        self._watch_all()
