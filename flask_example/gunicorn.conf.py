"""gunicorn -c flask_example/gunicorn.conf.py "flask_example:create_app()" """

import os
from typing import Any

from flask_example import embedded
from pgfanout.gunicorn import post_worker_init, worker_exit

__all__ = ["on_exit", "on_starting", "post_worker_init", "worker_exit"]

bind = f"127.0.0.1:{os.environ.get('PORT', '8000')}"
worker_class = "gthread"
workers = 1
threads = 8  # however many pages are open: a stream keeps none
raw_env = [f"BOARD_THREADS={threads}"]  # for the page's status line
control_socket_disable = True  # it would be left in the home directory


def on_starting(server: Any) -> None:
    """One embedded server for all workers, when DATABASE_URL names none."""
    embedded.database_url()


def on_exit(server: Any) -> None:
    """The workers are gone; so is the embedded server, when there was one."""
    embedded.stop()
