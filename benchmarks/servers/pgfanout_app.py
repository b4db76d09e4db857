"""Flask with pgfanout: the contenders `detached` and `threads`, which differ in PGFANOUT_DETACH and in threads.

Every PGFANOUT_* variable of the environment is a setting.
"""

from __future__ import annotations

import os

import flask

from pgfanout.flask import PgFanout

from .topic import CHANNEL, TENANT

__all__ = ["app"]

app = flask.Flask(__name__)
app.config.update({name: value for name, value in os.environ.items() if name.startswith("PGFANOUT_")})
fanout = PgFanout(app)


@app.get("/events")
def events() -> flask.Response:
    return fanout.stream(flask.request.args.get("channel", CHANNEL), TENANT)


@app.get("/hello")
def hello() -> str:
    return "hello"
