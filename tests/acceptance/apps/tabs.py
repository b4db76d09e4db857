"""Pages of users who log in: their events, with one stream for all tabs of a user or one for each."""

import functools
import os
import queue
import threading

import flask
import psycopg
from werkzeug import Response

from pgfanout.flask import PgFanout

from .names import tenant_of

app = flask.Flask(__name__)
app.config["PGFANOUT_URL"] = os.environ["DATABASE_URL"]
app.config.update({name: value for name, value in os.environ.items() if name.startswith("PGFANOUT_")})
fanout = PgFanout(app)

# Few pools look whether a connection is still alive before they give it away. This one does not.
pool: queue.SimpleQueue[psycopg.Connection] = queue.SimpleQueue()
SIZE = 4
opening = threading.Lock()  # the pool is filled once, in the worker

asked = {"stream": 0, "load": 0}

# `impatient` makes the feed look for its leader ten times as often, and `lockless` is a browser without Web Locks.
_PAGE = """<!doctype html><title>{{ user }}</title>
<script>
window.seen = { numbers: [], loads: 0, statuses: [], expired: 0 };
if (location.search.includes("impatient")) {
  const slow = setInterval;
  window.setInterval = (react, time) => slow(react, time / 10);
}
if (location.search.includes("lockless")) Object.defineProperty(navigator, "locks", { value: undefined });
</script>
<script type="module">
import { Feed } from "{{ pgfanout_client_url() }}";
window.feed = new Feed({
  url: "/events?user={{ user }}",
  cursor: "{{ cursor }}",
  shared: "{{ shared }}",
  types: ["number"],
  load: (signal) => fetch("/numbers", { signal }),
  onState: (numbers) => { seen.loads += 1; seen.numbers = numbers; },
  onEvent: (type, number) => seen.numbers.push(number),
  onStatus: (status) => seen.statuses.push(status),
  onExpired: () => { seen.expired += 1; },
});
feed.open();
</script>
"""


def connect() -> None:
    pool.put(psycopg.connect(os.environ["DATABASE_URL"], autocommit=True))


@functools.cache
def fill() -> None:
    for _ in range(SIZE):
        connect()


def numbers() -> list[int]:
    with opening:
        fill()
    connection = pool.get(timeout=5)
    try:
        query = "SELECT number FROM numbers WHERE owner = %s ORDER BY id"
        rows = connection.execute(query, (user(),)).fetchall()
    except psycopg.OperationalError:
        connection.close()
        connect()
        raise
    pool.put(connection)
    return [number for (number,) in rows]


def user() -> str:
    return flask.request.cookies.get("user", "")


@app.get("/login/<name>")
def login(name: str) -> Response:
    response = flask.redirect("/")
    response.set_cookie("user", name)
    return response


@app.get("/logout")
def logout() -> Response:
    response = flask.redirect("/form")
    response.delete_cookie("user")
    return response


@app.get("/form")
def form() -> str:
    return "<!doctype html><title>Log in</title>"


@app.get("/")
def page() -> str:
    cursor = fanout.cursor()
    shared = user() if "alone" not in flask.request.args else ""
    return flask.render_template_string(_PAGE, user=user(), cursor=cursor, shared=shared)


@app.get("/numbers")
def load() -> Response:
    asked["load"] += 1
    return flask.jsonify(numbers()) if user() else flask.redirect("/form")


@app.get("/events")
def events() -> Response:
    asked["stream"] += 1
    if not user():
        return flask.redirect("/form")
    if flask.request.args["user"] != user():
        flask.abort(403)
    return fanout.stream("numbers", tenant_of(user()))


@app.get("/asked")
def counts() -> Response:
    return flask.jsonify(**asked, open=fanout.limiter.open)
