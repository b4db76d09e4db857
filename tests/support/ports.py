"""Loopback ports for servers that keep their port when they restart."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range that systems give to outgoing connections. A port of that range could be taken while its server is
# down, and a client that keeps trying it can even connect to itself.
_PORTS = range(20000, 32000)
_SHARE = 1000


def _claim() -> list[int]:
    """Ports that no other process gives to its servers: their first one stays bound until this process ends.

    Otherwise of two test runs at a time both could find a port free before either's server listens on it.
    """
    shares = [_PORTS[at : at + _SHARE] for at in range(0, len(_PORTS), _SHARE)]
    for first, *others in random.sample(shares, len(shares)):
        claim = socket.socket()
        try:
            claim.bind((LOOPBACK, first))
        except OSError:
            claim.close()
            continue
        claim.detach()
        return random.sample(others, len(others))
    return random.sample(_PORTS, len(_PORTS))


_ours = _claim()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now; none comes twice before all of them have come."""
    for _ in range(len(_ours)):
        port = _ours.pop()
        _ours.insert(0, port)
        with socket.socket() as probe:
            # Servers set it too: a port with old connections in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free loopback port found")
