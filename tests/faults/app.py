"""The application of the fault tests; its settings come from the environment, and its worker tells what it holds."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict

import flask
import psutil

from pgfanout import HubTimeoutError, Subscription
from pgfanout.flask import PgFanout

from .routes import routes

app = flask.Flask(__name__)
app.config.update({name: value for name, value in os.environ.items() if name.startswith("PGFANOUT_")})
app.config["PGFANOUT_URL"] = os.environ["DATABASE_URL"]
fanout = PgFanout(app)

if os.environ.get("START_BEFORE_FORK"):
    with suppress(HubTimeoutError):  # the database may be away
        fanout.hub.start()


@app.get("/")
def index() -> str:
    return "hello"


@app.get("/events")
def events() -> flask.Response:
    asked = flask.request.args
    if buffer := asked.get("buffer", type=int):  # bytes, so that a reader who is slow fills it soon
        flask.request.environ["gunicorn.socket"].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    return fanout.stream(asked.getlist("channel") or "orders", asked.getlist("tenant"), detach=asked.get("detach"))


@app.post("/publish")
def publish() -> tuple[str, int]:
    fanout.publish("orders", flask.request.args["tenant"], flask.request.json)
    return "", 204


@app.post("/burst")
def burst() -> tuple[str, int]:
    """Many events in one transaction."""
    tenant, count = flask.request.args["tenant"], int(flask.request.args["events"])
    fanout.publish_many([("orders", tenant, {"number": number}) for number in range(count)])
    return "", 204


@app.post("/churn")
def churn() -> tuple[str, int]:
    """Subscriptions that come and go."""
    for _ in range(int(flask.request.args["subscriptions"])):
        fanout.hub.subscribe(("orders", "stock"), uuid.uuid4()).close()
    return "", 204


@app.get("/inside")
def inside() -> flask.Response:
    gc.collect()
    process = psutil.Process()
    return flask.jsonify(
        **asdict(fanout.hub.stats()),
        routes=routes(fanout.hub),
        streams=fanout.limiter.open,
        in_threads=fanout.limiter.in_threads,
        objects=sum(type(each) is Subscription for each in gc.get_objects()),
        threads=sorted(thread.name for thread in threading.enumerate() if "pgfanout" in thread.name),
        all_threads=threading.active_count(),
        descriptors=process.num_fds(),
        clock=time.time(),
        pid=process.pid,
        memory=process.memory_info().rss,
    )
