"""Advice: what the operator is told about the server, once in a process."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from .limiter import hooks_are_installed

__all__ = ["advise"]

logger = logging.getLogger("pgfanout")


def advise(environ: Mapping[str, Any], *, one_process: bool) -> None:
    """Warn of a server that streams don't suit. Its request is one for a stream.

    `one_process` says whether the hub's events reach this process alone. The test clients of frameworks are no servers
    and give none its name.
    """
    server = str(environ.get("SERVER_SOFTWARE", ""))
    if server.startswith("gunicorn") and not hooks_are_installed():
        _warn_once(
            "gunicorn runs without pgfanout's hooks, so streams may take every thread and delay each restart:"
            " add `from pgfanout.gunicorn import post_worker_init, worker_exit` to gunicorn.conf.py"
        )
    if server and one_process:
        _warn_once(_FEW_PAGES if environ.get("wsgi.multiprocess") else _ONE_PROCESS)


_ONE_PROCESS = (
    "the hub is a memory hub: events reach the pages of this process alone. That is enough for development. Elsewhere"
    " set PGFANOUT_URL to a postgresql:// URL"
)

_FEW_PAGES = (
    "the hub is a memory hub, and this server has several processes: an event reaches only the pages of the process"
    " that publishes it. Set PGFANOUT_URL to a postgresql:// URL"
)


@functools.cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)
