"""The site of the fault harness: streams of any channels of a tenant, and what its worker holds."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import asdict

import flask
import psutil

from pgfanout.flask import PgFanout

_TENANT = "7d0e6f3a-7b1c-4a58-9f55-0c2d8f0f6a11"

app = flask.Flask(__name__)
app.config.update(
    PGFANOUT_DATABASE_URL=os.environ["DATABASE_URL"],
    PGFANOUT_HEARTBEAT=0.5,
    PGFANOUT_HEARTBEAT_TIMEOUT=0.5,
    PGFANOUT_KEEPALIVE=1.0,
    PGFANOUT_CLIENT_TIMEOUT=float(os.environ.get("CLIENT_TIMEOUT", "30")),
)
fanout = PgFanout(app)
if os.environ.get("START_BEFORE_FORK"):
    fanout.hub.start()


@app.get("/events")
def events() -> flask.Response:
    return fanout.stream(flask.request.args.getlist("channel"), flask.request.args["tenant"])


@app.post("/churn")
def churn() -> tuple[str, int]:
    for _ in range(int(flask.request.args["subscriptions"])):
        fanout.hub.subscribe(("orders", "stock"), uuid.uuid4()).close()
    return "", 204


@app.post("/publish")
def publish() -> tuple[str, int]:
    count = int(flask.request.args["events"])
    fanout.publish_many([("orders", _TENANT, {"number": number}) for number in range(count)])
    return "", 204


@app.get("/inside")
def inside() -> flask.Response:
    process = psutil.Process()
    return flask.jsonify(
        **asdict(fanout.hub.stats()),
        pid=process.pid,
        streams=fanout.limiter.open,
        descriptors=process.num_fds(),
        threads=sorted(thread.name for thread in threading.enumerate()),
        memory=process.memory_info().rss,
    )


@app.get("/")
def index() -> str:
    return "hello"
