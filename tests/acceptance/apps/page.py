"""The guide's page with its script as it stands there, and the little that the script needs."""

import os

import flask
import psycopg

from pgfanout.flask import PgFanout

from .names import TENANT, block

app = flask.Flask(__name__)
app.config["PGFANOUT_URL"] = os.environ["DATABASE_URL"]
fanout = PgFanout(app)

_PAGE = """<!doctype html><title>page</title><ul id="list"></ul><p id="loads">0</p>
<script>
const item = (id) => Object.assign(document.createElement("li"), {textContent: id});
function show(ids) {
  list.replaceChildren(...ids.map(item));
  loads.textContent = Number(loads.textContent) + 1;
}
function update(change) { list.append(item(change.id)); }
</script>
%s
"""


@app.get("/")
def index() -> str:
    return flask.render_template_string(_PAGE % block("docs/guide.md", '<script type="module">'))


@app.get("/orders")
def orders() -> flask.Response:
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT id FROM orders ORDER BY id").fetchall()
    return flask.jsonify([number for (number,) in rows])


@app.get("/events")
def events() -> flask.Response:
    return fanout.stream("orders", TENANT)
