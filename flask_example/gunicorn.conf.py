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
threads = 8  # for any number of open pages: streams keep no thread
raw_env = [f"BOARD_THREADS={threads}"]  # for the page's status line
control_socket_disable = True  # gunicorn would leave the socket in the home directory


def on_starting(server: Any) -> None:
    """Start one embedded server for all workers if DATABASE_URL is not set."""
    given = os.environ.get("DATABASE_URL")
    url = embedded.database_url()
    if not given:
        server.log.info("The database, for changes by hand: psql %s", shlex.quote(url))


def post_worker_init(worker: Any) -> None:
    """Start the worker's hub. The history has to be installed before that."""
    with suppress(OperationalError):  # the server is away: the first request prepares the database
        worker.wsgi.extensions["orders"].prepare()
    pgfanout.gunicorn.post_worker_init(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """Close the pool here. Otherwise the interpreter waits for each of the pool's threads at exit, in vain."""
    pgfanout.gunicorn.worker_exit(server, worker)
    worker.wsgi.extensions["orders"].close()


def on_exit(server: Any) -> None:
    """The workers have ended. Stop the embedded server, if there is one."""
    embedded.stop()
