"""The plain application in a process whose sockets have a time-out by default."""

import socket

from .plain import app

__all__ = ["app"]

socket.setdefaulttimeout(120.0)
