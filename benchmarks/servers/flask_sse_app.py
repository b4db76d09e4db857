"""flask-sse as its documentation has it, on Redis, with gunicorn's gevent worker.

Each client has a Redis connection of its own.
"""

from __future__ import annotations

import os

import flask
from flask_sse import sse

__all__ = ["app"]

app = flask.Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/events")


@app.get("/hello")
def hello() -> str:
    return "hello"
