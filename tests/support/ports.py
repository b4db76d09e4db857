"""Loopback ports for servers that keep their port when they restart."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the range that systems give to outgoing connections. A port of that range could be taken while its server is
# down, and a client that keeps trying it can even connect to itself.
_PORTS = range(20000, 32000)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            # Servers set it too: a port with old connections in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free loopback port found")
