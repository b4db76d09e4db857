"""A network of its own for a part of a test: a namespace, joined to ours by a pair of virtual Ethernet devices."""

from __future__ import annotations

import ctypes
import functools
import ipaddress
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from . import processes

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_LIMIT = 120.0  # seconds; a server may be started inside
_PRIVATE = ipaddress.ip_network("10.0.0.0/8")  # RFC 1918

_counter = itertools.count(1)


@functools.cache
def missing_reason() -> str | None:
    """Why no network namespace can be made here, or None. It is tried, once."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if _ip_binary() is None:
        return "iproute2 (the command ip) is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with NetworkNamespace() as namespace:
            namespace.run(os.getpid)
    except OSError as error:
        return f"network namespaces are not permitted here: {error}"
    return None


class NetworkNamespace:
    """A namespace in which we are `outside` and it is `inside`, two addresses of a net that nothing else uses.

    The constructor makes nothing; `with` makes the namespace and removes it. Sockets that a function makes in `run`
    belong to it for their whole life, whichever thread uses them, and so does a process that is started there.
    """

    def __init__(self) -> None:
        self.name = f"pgfanout-{os.getpid()}-{next(_counter)}"
        stem = self.name.removeprefix("pgfanout-").replace("-", "x")  # an interface's name has 15 characters at most
        self._near, self._far = f"pf{stem}o", f"pf{stem}i"
        self.outside = self.inside = ""

    def __enter__(self) -> NetworkNamespace:
        net = _unused_net()
        self.outside, self.inside = (str(address) for address in net.hosts())
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
            _ip("address", "add", f"{self.outside}/{net.prefixlen}", "dev", self._near)
            _ip("link", "set", self._near, "up")
            self._inside("address", "add", f"{self.inside}/{net.prefixlen}", "dev", self._far)
            self._inside("link", "set", "lo", "up")
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything. Idempotent.

        The namespace itself lives for as long as a socket or a process is in it, without a name and without a link.
        """
        for command in (("link", "delete", self._near), ("netns", "delete", self.name)):
            subprocess.run(_command(*command), capture_output=True, check=False)

    def down(self) -> None:
        """Lose every packet from now on, in both directions: no FIN, no RST and no ICMP reaches anyone outside."""
        self._inside("link", "set", self._far, "down")

    def up(self) -> None:
        """Let packets pass again."""
        self._inside("link", "set", self._far, "up")

    def run(self, function: Callable[[], T]) -> T:
        """Call it in a thread that is inside, and return or raise what it does."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                self._enter()
                outcome.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=work, name=self.name, daemon=True)
        thread.start()
        thread.join(_LIMIT)
        if failure:
            raise failure[0]
        if not outcome:
            raise TimeoutError(f"{function!r} did not end within {_LIMIT} s")
        return outcome[0]

    def spawn(
        self, arguments: Sequence[str], *, log: IO[bytes], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program inside, in the way of `processes.spawn`: a child inherits its thread's namespace."""
        return self.run(lambda: processes.spawn(arguments, log=log, env=env))

    def _enter(self) -> None:
        """Move the calling thread, and no other, inside for good."""
        handle = os.open(Path("/run/netns") / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(handle, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"setns: {os.strerror(number)}")
        finally:
            os.close(handle)

    def _inside(self, *arguments: str) -> None:
        _ip("-netns", self.name, *arguments)


def _unused_net() -> ipaddress.IPv4Network:
    """Two addresses of a private range to which no route leads, but the default one."""
    used = [ipaddress.ip_network(route["dst"]) for route in _routes() if route["dst"] != "default"]
    while True:
        net = ipaddress.IPv4Network((int(_PRIVATE[0]) + 4 * random.randrange(_PRIVATE.num_addresses // 4), 30))
        if not any(net.overlaps(other) for other in used):
            return net


def _routes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_ip("-4", "-json", "route", "show", "table", "all"))
    return found


def _ip(*arguments: str) -> str:
    try:
        return subprocess.run(_command(*arguments), capture_output=True, check=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from None


def _command(*arguments: str) -> list[str]:
    return [_ip_binary() or "ip", *arguments]


def _ip_binary() -> str | None:
    return shutil.which("ip", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
