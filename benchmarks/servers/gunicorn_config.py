"""gunicorn's configuration for every contender that it serves; the rest is on the command line."""

from __future__ import annotations

__all__ = ["control_socket_disable"]

# Several of them run one after another, and none is to be spoken to. Older gunicorns don't know it and don't mind.
control_socket_disable = True
