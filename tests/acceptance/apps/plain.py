"""The smallest application with a stream, its threads visible from outside."""

import os
import resource
import signal
from dataclasses import asdict

import flask
import psutil

from pgfanout import PostgresHub
from pgfanout.flask import PgFanout

app = flask.Flask(__name__)
app.config["PGFANOUT_URL"] = os.environ["DATABASE_URL"]
app.config.update({name: value for name, value in os.environ.items() if name.startswith("PGFANOUT_")})
app.config["PGFANOUT_MAX_STREAMS_PER_USER"] = 2
fanout = PgFanout(app)

if files := os.environ.get("OPEN_FILES"):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))

if os.environ.get("START_BEFORE_FORK"):
    fanout.hub.start()


@app.get("/events")
def events() -> flask.Response:
    tenant = flask.request.args["tenant"]
    asked = flask.request.args
    return fanout.stream("orders", tenant, user_id=asked.get("user"), detach=asked.get("detach"))


@app.post("/publish")
def publish() -> tuple[str, int]:
    fanout.publish("orders", flask.request.args["tenant"], flask.request.json)
    return "", 204


@app.get("/healthz")
def healthz() -> flask.Response:
    return fanout.healthz()


@app.get("/cursor")
def cursor() -> str:
    return fanout.cursor()


@app.get("/install")
def install() -> str:
    assert isinstance(fanout.hub, PostgresHub)
    fanout.hub.install_history()
    return "installed"


@app.get("/streams")
def streams() -> str:
    return str(fanout.limiter.open)


@app.get("/stats")
def stats() -> flask.Response:
    process = psutil.Process()
    return flask.jsonify(
        **asdict(fanout.hub.stats()),
        streams=fanout.limiter.open,
        in_threads=fanout.limiter.in_threads,
        descriptors=process.num_fds(),
        threads=process.num_threads(),
    )


@app.get("/interrupt-handler")
def interrupt_handler() -> str:
    handler = signal.getsignal(signal.SIGINT)
    return str(getattr(getattr(handler, "func", handler), "__qualname__", handler))


@app.get("/")
def index() -> str:
    return "hello"
