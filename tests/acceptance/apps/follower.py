"""A page that follows streams and writes down all that they bring, without ever loading anything."""

import os
from dataclasses import asdict

import flask

from pgfanout.flask import PgFanout

from .names import TENANT

app = flask.Flask(__name__)
app.config["PGFANOUT_URL"] = os.environ["DATABASE_URL"]
app.config.update({name: value for name, value in os.environ.items() if name.startswith("PGFANOUT_")})
fanout = PgFanout(app)

# Handlers for the types that are published, those of the hub, and "message", which gets what has no type.
_PAGE = """<!doctype html><title>follower</title>
<script>
window.streams = {};
for (const name of new URLSearchParams(location.search).getAll("stream")) {
  const [channel, detach] = name.split("-");
  const source = new EventSource(`/events?channel=${channel}&detach=${detach}`);
  const stream = window.streams[name] = { opened: 0, seen: [], cursor: "" };
  source.onopen = () => { stream.opened += 1; };
  for (const type of ["message", "order", "refresh"]) {
    source.addEventListener(type, (event) => stream.seen.push(type === "refresh" ? type : JSON.parse(event.data)));
  }
  source.addEventListener("pgfanout.cursor", (event) => { stream.cursor = event.lastEventId; });
}
</script>
"""


# The same with the library's Feed, and what it asks for.
_FEED = """<!doctype html><title>feed</title>
<script>
window.asked = [];
window.seen = [];
window.cursor = window.state = "";
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    asked.push(String(url));
    this.addEventListener("pgfanout.cursor", (event) => { window.cursor = event.lastEventId; });
  }
};
</script>
<script type="module">
import { Feed } from "{{ pgfanout_client_url() }}";
new Feed({
  url: "/events?channel=quiet&detach=auto",
  cursor: "{{ cursor }}",
  types: ["order"],
  load: async () => seen.push("load"),
  onState: () => {},
  onEvent: (type, payload) => seen.push(payload),
  onStatus: (state) => { window.state = state; },
}).open();
</script>
"""


@app.get("/feed")
def feed() -> str:
    return flask.render_template_string(_FEED, cursor=fanout.hub.cursor() or "")


@app.get("/")
def index() -> str:
    return _PAGE


@app.get("/events")
def events() -> flask.Response:
    asked = flask.request.args
    return fanout.stream(asked["channel"], TENANT, detach=asked["detach"])


@app.get("/stats")
def stats() -> flask.Response:
    return flask.jsonify(**asdict(fanout.hub.stats()), in_threads=fanout.limiter.in_threads)
