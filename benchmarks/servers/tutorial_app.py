"""What tutorials do: each client has a thread of gunicorn's and a connection of its own that listens.

No queue, no buffer: what a client has not read waits in the connection to PostgreSQL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import flask
import psycopg

from .topic import POSTGRES_CHANNEL

__all__ = ["app"]

app = flask.Flask(__name__)


def frames() -> Iterator[str]:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"LISTEN {POSTGRES_CHANNEL}")
        yield ": open\n\n"
        for notify in connection.notifies():
            event = json.loads(notify.payload)
            payload = json.dumps(event["payload"], separators=(",", ":"))
            yield f"id: {event['id']}\ndata: {payload}\n\n"


@app.get("/events")
def events() -> flask.Response:
    return flask.Response(frames(), mimetype="text/event-stream")


@app.get("/hello")
def hello() -> str:
    return "hello"
