"""The smallest application with a stream, its threads visible from outside."""

import os
import signal

import flask

from pgfanout.flask import PgFanout

app = flask.Flask(__name__)
app.config["PGFANOUT_DATABASE_URL"] = os.environ["DATABASE_URL"]
for key in ("KEEPALIVE", "CLIENT_TIMEOUT"):
    if value := os.environ.get(f"PGFANOUT_{key}"):
        app.config[f"PGFANOUT_{key}"] = float(value)
app.config["PGFANOUT_DETACH"] = os.environ.get("PGFANOUT_DETACH", "auto")
app.config["PGFANOUT_MAX_STREAMS_PER_USER"] = 2
fanout = PgFanout(app)

if os.environ.get("START_BEFORE_FORK"):
    fanout.hub.start()


@app.get("/events")
def events() -> flask.Response:
    tenant = flask.request.args["tenant"]
    return fanout.stream("orders", tenant, user_id=flask.request.args.get("user"))


@app.post("/publish")
def publish() -> tuple[str, int]:
    fanout.publish("orders", flask.request.args["tenant"], flask.request.json)
    return "", 204


@app.get("/healthz")
def healthz() -> flask.Response:
    return fanout.healthz()


@app.get("/streams")
def streams() -> str:
    return str(fanout.limiter.open)


@app.get("/interrupt-handler")
def interrupt_handler() -> str:
    handler = signal.getsignal(signal.SIGINT)
    return str(getattr(getattr(handler, "func", handler), "__qualname__", handler))


@app.get("/")
def index() -> str:
    return "hello"
