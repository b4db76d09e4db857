"""A site for the page's client that does as a test says: streams that are written by hand, loads that fail."""

from __future__ import annotations

import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pgfanout.static import page_client

from .ports import LOOPBACK

__all__ = ["Reply", "StubSite", "StubStream"]

_PAGE = """<!doctype html><title>page</title>
<script>
window.seen = { states: [], events: [], statuses: [], expired: 0, console: [] };
for (const level of ["warn", "error"]) {
  const write = console[level];
  console[level] = (...parts) => { seen.console.push(parts.join(" ")); write(...parts); };
}
%s
</script>
<script type="module">
import { Feed } from "/pgfanout.js";
window.feed = new Feed({
  url: "/events",
  types: ["order"],
  load: (signal) => fetch("/orders", { signal }),
  onState: (state) => seen.states.push(state),
  onEvent: (type, payload) => seen.events.push([type, payload]),
  onStatus: (status) => seen.statuses.push(status),
  onExpired: () => { seen.expired += 1; },
  %s
});
feed.open();
</script>
"""

Reply = tuple[int, dict[str, str], bytes]
"""A status, headers and a body."""

BAD_GATEWAY: Reply = (502, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")
LOGIN: Reply = (200, {"Content-Type": "text/html"}, b"<h1>Log in</h1>")


class StubStream:
    """A stream that is open. It is written by the test."""

    def __init__(self, path: str, last_event_id: str) -> None:
        self.path = path
        self.last_event_id = last_event_id
        self._frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, data: str, *, type: str = "order", id: str = "") -> None:
        start = f"id: {id}\n" if id else ""
        self._frames.put(f"{start}event: {type}\ndata: {data}\n\n".encode())

    def end(self) -> None:
        """Close the connection, without a word to the browser."""
        self._frames.put(b"")

    def frames(self) -> Any:
        return iter(self._frames.get, b"")


class StubSite:
    """A server on the loopback: a page at `/` with a feed, its module, its loads and its streams.

    `options` are more options of the feed, as JavaScript, `script` runs before the feed is made. `loads` are the
    replies to the next loads. When none is left, `state` is loaded. `refusal` is the reply in place of a stream.
    Replies at other paths are in `replies`. `/moved` is another place with streams. Each attribute may be changed at
    any time.
    """

    def __init__(self, *, options: str = "", script: str = "") -> None:
        self.options, self.script = options, script
        self.state = b'"state"'
        self.loads: list[Reply] = []
        self.refusal: Reply | None = None
        self.replies: dict[str, Reply] = {"/login": LOGIN}
        self.requests: list[str] = []
        """The method and the path of each request, but for those for the page and its module."""
        self.streams: list[StubStream] = []

    def __enter__(self) -> StubSite:
        self._server = _Server(self)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self.streams:
            stream.end()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, method_and_path: str) -> int:
        """How often that was requested."""
        return self.requests.count(method_and_path)

    def reply(self, path: str) -> Reply | None:
        """The reply to a request, or None for a stream."""
        if path == "/orders" and self.loads:
            return self.loads.pop(0)
        replies: dict[str, Reply | None] = {
            "/": (200, {"Content-Type": "text/html"}, (_PAGE % (self.script, self.options)).encode()),
            "/pgfanout.js": (200, dict(page_client().headers()), page_client().source),
            "/orders": (200, {"Content-Type": "application/json"}, self.state),
            "/events": self.refusal,
            "/moved": None,
            **self.replies,
        }
        return replies.get(path, (404, {}, b""))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, site: StubSite) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.site = site


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path not in ("/", "/pgfanout.js", "/favicon.ico"):
            self.server.site.requests.append(f"{self.command} {path}")
        reply = self.server.site.reply(path)
        try:
            if reply is None:
                self._stream()
            else:
                self._answer(*reply)
        except OSError:
            pass  # the browser has left

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        if self.command == "HEAD":
            return
        asked = urlsplit(self.path).query.partition("last_event_id=")[2]
        stream = StubStream(self.path, self.headers.get("Last-Event-ID", asked))
        self.server.site.streams.append(stream)
        for frame in stream.frames():
            self.wfile.write(frame)
