"""gunicorn's configuration with pgfanout's hooks."""

from __future__ import annotations

from pgfanout.gunicorn import post_worker_init, worker_exit

from .gunicorn_config import control_socket_disable

__all__ = ["control_socket_disable", "post_worker_init", "worker_exit"]
