"""An application with a stream whose worker tells what it holds; its settings come from the environment."""

from __future__ import annotations

import gc
import os
import threading
import time

import flask
import psutil

from pgfanout import Subscription
from pgfanout.flask import PgFanout

app = flask.Flask(__name__)
app.config.update({name: value for name, value in os.environ.items() if name.startswith("PGFANOUT_")})
app.config["PGFANOUT_DATABASE_URL"] = os.environ["DATABASE_URL"]
fanout = PgFanout(app)


@app.get("/")
def index() -> str:
    return "hello"


@app.get("/events")
def events() -> flask.Response:
    return fanout.stream("orders", flask.request.args["tenant"])


@app.post("/publish")
def publish() -> tuple[str, int]:
    fanout.publish("orders", flask.request.args["tenant"], flask.request.json)
    return "", 204


@app.get("/inside")
def inside() -> flask.Response:
    stats = fanout.hub.stats()
    gc.collect()
    return flask.jsonify(
        streams=fanout.limiter.open,
        subscriptions=stats.subscriptions,
        objects=sum(type(each) is Subscription for each in gc.get_objects()),
        threads=sorted(thread.name for thread in threading.enumerate() if "pgfanout" in thread.name),
        listening=stats.listening,
        reconnects=stats.reconnects,
        clock=time.time(),
        memory=psutil.Process().memory_info().rss,
    )
