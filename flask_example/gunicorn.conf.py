"""gunicorn -c flask_example/gunicorn.conf.py "flask_example:create_app()" """

import os
import shlex
from contextlib import suppress
from typing import Any

from psycopg import OperationalError

import pgfanout.gunicorn
from flask_example import embedded

__all__ = ["on_exit", "on_starting", "post_worker_init", "worker_exit"]

bind = f"127.0.0.1:{os.environ.get('PORT', '8000')}"
worker_class = "gthread"
workers = 1
threads = 8  # however many pages are open: a stream keeps none
raw_env = [f"BOARD_THREADS={threads}"]  # for the page's status line
control_socket_disable = True  # it would be left in the home directory


def on_starting(server: Any) -> None:
    """One embedded server for all workers, when DATABASE_URL names none."""
    given = os.environ.get("DATABASE_URL")
    url = embedded.database_url()
    if not given:
        server.log.info("The database, for changes by hand: psql %s", shlex.quote(url))


def post_worker_init(worker: Any) -> None:
    """The worker's hub begins to listen here, so the history has to be there before."""
    with suppress(OperationalError):  # the server is away: the first request does it
        worker.wsgi.extensions["orders"].prepare()
    pgfanout.gunicorn.post_worker_init(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """The pool's threads end here: at the end of the interpreter each would be waited for in vain."""
    pgfanout.gunicorn.worker_exit(server, worker)
    worker.wsgi.extensions["orders"].close()


def on_exit(server: Any) -> None:
    """The workers are gone; so is the embedded server, when there was one."""
    embedded.stop()
