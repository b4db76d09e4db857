"""An application with a memory hub: no database. Its URL is in the environment."""

from __future__ import annotations

import flask

from pgfanout.flask import PgFanout

app = flask.Flask(__name__)
fanout = PgFanout(app)
TENANT = "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11"


@app.get("/")
def index() -> str:
    return "here"


@app.get("/events")
def events() -> flask.Response:
    return fanout.stream("orders", TENANT)


@app.post("/publish/<word>")
def publish(word: str) -> tuple[str, int]:
    fanout.publish("orders", TENANT, word)
    return "", 204
