"""Mutations: for each promise, one line of the library changed so that it is broken. The harness has to notice each.

    python -m tests.faults.mutations [--seed N] [--only NUMBER,...]

Each runs on a copy of the package and the tests. The exit status is 1 when one was not noticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from tests.support.processes import REPOSITORY

from .history_mutations import WITH_HISTORY
from .mutation import Mutation

__all__ = ["MUTATIONS"]


_LISTENER = "backends/postgres/listener.py"
_SESSION = "backends/postgres/session.py"
_POSTGRES_BACKEND = "backends/postgres/backend.py"
_CONNECTION = "streams/detached/connection.py"
_BACKLOG = "delivery/backlog.py"
_TAIL = "delivery/tail.py"
_INTAKE = "delivery/intake.py"

MUTATIONS = (
    Mutation(1, "a batch is handed on backwards", _INTAKE, "for text in texts:", "for text in reversed(list(texts)):"),
    Mutation(1, "a reader gets the newest first", _TAIL, "end - first]", "end - first][::-1]"),
    Mutation(
        1,
        "a channel that is named twice is followed twice",
        "topic.py",
        "list(dict.fromkeys(Topic.of(name, tenant) for tenant in tenants for name in names))",
        "[Topic.of(name, tenant) for tenant in tenants for name in names]",
    ),
    Mutation(2, "a UUID in upper case is another tenant", "topic.py", "return text.lower()", "return text"),
    Mutation(
        2,
        "an overflow drops the backlog without a word",
        _TAIL,
        "        self.bytes = 0\n        self.append_refresh()\n",
        "        self.bytes = 0\n",
    ),
    Mutation(
        2,
        "a refresh is not queued behind an event",
        _BACKLOG,
        "if tail.events and tail.events[-1] is REFRESH_EVENT:",
        "if tail.events:",
        ("listeners-terminated",),
    ),
    Mutation(
        2,
        "a new session is no gap",
        "backend.py",
        "        elif again and not self._intake.tells_gap:\n",
        "        elif False:\n",
        ("listeners-terminated", "connections-cut"),
    ),
    Mutation(
        2,
        "the gap is told before the new session listens",
        _LISTENER,
        "                session.listen()\n",
        "                self._announce(session.query); time.sleep(0.05); self._announce = lambda query: None\n"
        "                session.listen()\n",
        ("listeners-terminated",),
    ),
    Mutation(
        2,
        "a notification that is no event is no gap",
        _INTAKE,
        "            except MalformedEnvelopeError as error:\n                self._dispatcher.take_malformed(error)",
        "            except MalformedEnvelopeError:\n                self._dispatcher.undecodable += 1",
        ("garbage",),
    ),
    Mutation(
        2,
        "events are delivered between a gap and its refresh",
        "delivery/dispatcher.py",
        "held = self._waiting and not self.fills_gaps",
        "held = False",
        ("garbage",),
    ),
    Mutation(
        2,
        "a gap that waits to be told is forgotten",
        "delivery/dispatcher.py",
        "        return max(0.0, self._refresh_at - self._clock()) if self._waiting else None\n",
        "        self._waiting = set()\n",
        ("garbage",),
    ),
    Mutation(
        2,
        "an event has no id, and PostgreSQL folds it with another",
        "envelope.py",
        "type, new_id())",
        "type, '')",
    ),
    Mutation(
        2,
        "nobody is woken",
        _BACKLOG,
        "            if needed:\n                self.not_empty.notify()\n",
        "",
    ),
    Mutation(
        2,
        "detached streams are not woken",
        "delivery/dispatcher.py",
        "            self.mailbox.wake()\n",
        "            pass\n",
    ),
    Mutation(
        2,
        "a detached stream that is too slow loses events without a word",
        "delivery/reader.py",
        "overflows)\n            events.append(REFRESH_EVENT)\n",
        "overflows)\n",
    ),
    Mutation(
        2,
        "what a client's socket did not take is lost",
        "streams/detached/audience.py",
        "            connection.rest = (rest, *connection.rest)\n",
        "            pass\n",
    ),
    Mutation(
        1,
        "a detached stream that fell behind gets the same again",
        "streams/detached/audience.py",
        "            connection.reader = self.reader.copy()\n",
        "            connection.reader = self.reader.copy(); connection.reader.position -= 1\n",
    ),
    Mutation(
        2,
        "what came before a detached stream was admitted is forgotten",
        "streams/detached/audience.py",
        "            events = self.feed.read(reader, self.reader.position)\n",
        "            events = []\n",
    ),
    Mutation(
        2,
        "the session has the role's encoding instead of UTF-8",
        "backends/postgres/conninfo.py",
        '**given, "client_encoding": "UTF8"})',
        "**given})",
    ),
    Mutation(
        2,
        "a stream begins without an id, so that no browser can come back with one",
        "streams/sse.py",
        'start = b"%d" % number if number else _START_ID\n',
        'start = b"%d" % number if number else b""\n',
        ("workers-replaced", "worker-stopped"),
    ),
    Mutation(
        2,
        "an id stands in a block without data, where Firefox does not take it",
        "streams/sse.py",
        '_CURSOR: Final = b"event: %b\\ndata: {}\\n\\n" % CURSOR_TYPE.encode()',
        '_CURSOR: Final = b"\\n"',
        ("workers-replaced", "worker-stopped"),
    ),
    Mutation(
        2,
        "of a batch the first alone is taken",
        _SESSION,
        "return _texts(payloads)",
        "return _texts(payloads[:1])",
    ),
    Mutation(
        2,
        "what arrives while the server is asked is forgotten",
        _SESSION,
        "        return float(usage)\n",
        "        self._arrived.clear()\n        return float(usage)\n",
    ),
    Mutation(
        2,
        "a notification that can't be decoded is no gap",
        _SESSION,
        "return [_text(payload) for payload in payloads]",
        "return [_text(payload) for payload in payloads if _text(payload)]",
        ("bytes-corrupted",),
    ),
    Mutation(
        2,
        "a browser that comes back isn't told",
        "streams/sse.py",
        "encode(REFRESH_EVENT) if resumed else _CURSOR)",
        "_CURSOR)",
        ("workers-replaced",),
    ),
    Mutation(
        3,
        "an event leaves before its transaction commits",
        _POSTGRES_BACKEND,
        "self._executor if executor is None else executor",
        "None",
    ),
    Mutation(
        3,
        "a transaction block is not an executor",
        "executor.py",
        'callable(getattr(connection, "execute", None)):',
        "False:",
    ),
    Mutation(
        3,
        "the hub's own executor is forgotten",
        _POSTGRES_BACKEND,
        "self._executor if executor is None else executor",
        "executor",
    ),
    Mutation(
        4,
        "a channel is everybody's",
        "delivery/registry.py",
        "                consumers = self._consumers.get(topic)\n",
        "                consumers = Many({c: None for t, f in self._consumers.items() if t.channel == topic.channel"
        " for c in (f if isinstance(f, Many) else (f,))})\n",
    ),
    Mutation(
        4,
        "detached streams of one channel share a feed, whosever they are",
        "delivery/registry.py",
        "self._shared.get(topics)",
        "next((c for t, c in self._shared.items() if [x.channel for x in t] == [x.channel for x in topics]), None)",
    ),
    Mutation(
        5,
        "a queue has no end",
        _BACKLOG,
        "room = self._tail.append(event) or self._make_room()",
        "room = self._tail.append(event) or True",
    ),
    Mutation(
        5,
        "the listener waits for readers",
        _BACKLOG,
        "        with self.mutex:\n            if self.ended:\n                return True\n",
        "        if not self.ended:\n            return self.put(event) is None\n"
        "        with self.mutex:\n            if True:\n                return True\n",
    ),
    Mutation(
        5,
        "who has left stays in the registry",
        "delivery/registry.py",
        "self._remove(consumer)\n                self._members -= 1",
        "self._members -= 1",
    ),
    Mutation(5, "a detached stream that has left keeps its place", _CONNECTION, "self.on_close()\n", "pass\n"),
    Mutation(
        5,
        "a detached stream that has left stays in the registry",
        _CONNECTION,
        "self.feed.leave(stalled=stalled)\n",
        "pass\n",
    ),
    Mutation(
        5,
        "a stream that was closed keeps its place",
        "streams/threaded.py",
        "        on_close()\n",
        "",
        ("churn",),
    ),
    Mutation(
        6,
        "a worker that stops says nothing",
        "gunicorn.py",
        "    _end_idle_connections(worker)\n    _end_streams()",
        "    _end_idle_connections(worker)",
        ("workers-replaced", "worker-stopped"),
    ),
    Mutation(
        6,
        "a worker whose master has gone goes on",
        "gunicorn.py",
        "while worker.alive and os.getppid() == master:",
        "while worker.alive:",
        ("master-killed",),
    ),
    Mutation(
        6,
        "a stream ends without close",
        "streams/sse.py",
        "* retry_spread) + encode(CLOSE_EVENT)",
        "* retry_spread)",
        ("workers-replaced",),
    ),
    Mutation(
        6,
        "a detached stream ends without close",
        "streams/detached/audience.py",
        "            connection.put_closing()\n",
        "            connection.ending = True\n",
        ("workers-replaced",),
    ),
    Mutation(
        6,
        "the body of a detached stream has no end",
        _CONNECTION,
        "            self.rest += (LAST_CHUNK,)\n",
        "            pass\n",
        ("workers-replaced",),
    ),
    Mutation(
        6,
        "a worker does not wait for its detached streams",
        "gunicorn.py",
        "    if not streamer.wait_until_empty(max(0.0, deadline - time.monotonic())):\n",
        "    if True:\n",
        ("workers-replaced",),
    ),
    Mutation(
        7,
        "a lost connection is the end",
        _LISTENER,
        "self._survive(error)",
        "self._watchdog.wait_stopped(1e6)",
        ("listeners-terminated",),
    ),
    Mutation(
        7,
        "a silent connection is never found dead",
        "backends/postgres/watchdog.py",
        "                    self.expired = True\n                    self._cut(self._other or self._socket)\n",
        "                    self.expired = True\n",
        ("connections-stranded",),
    ),
    Mutation(
        7,
        "pauses grow without a limit",
        _LISTENER,
        "min(self._delay * 2, self._max_delay)",
        "self._delay * 2000",
        ("password-changed", "out-of-connections"),
    ),
    Mutation(
        7,
        "a heartbeat waits without a limit",
        _SESSION,
        "        with self._limit():\n            return execute(",
        "        if True:\n            return execute(",
        ("connections-stranded",),
    ),
    Mutation(
        8,
        "one thread less than promised is left",
        "streams/limiter.py",
        "max(_server_threads - reserve, min(1",
        "max(_server_threads - reserve + 1, min(1",
        ("crowd",),
    ),
    Mutation(
        8,
        "streams may take every thread",
        "streams/limiter.py",
        "return max(_server_threads - reserve, min(1, _server_threads - 1), 0)",
        "return _server_threads",
        ("crowd",),
    ),
    *WITH_HISTORY,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=lambda text: [int(number) for number in text.split(",")], default=[])
    options = parser.parse_args(arguments)
    unnoticed = 0
    for number, mutation in enumerate(MUTATIONS, 1):
        if number in (options.only or range(1, len(MUTATIONS) + 1)):
            began = monotonic()
            complaint, failure = _noticed(mutation, options.seed)
            unnoticed += not complaint
            print(
                f"{number:2}  promise {mutation.promise}: {mutation.what:52} "
                f"{'noticed' if complaint else 'NOT NOTICED':11} {monotonic() - began:5.1f} s  {complaint or failure}",
                flush=True,
            )
    print(f"{unnoticed} not noticed")
    return 1 if unnoticed else 0


def _noticed(mutation: Mutation, seed: int) -> tuple[str, str]:
    """What the harness said first of the mutated library; and how it failed itself, if it did."""
    with tempfile.TemporaryDirectory(prefix="pgfanout-mutation-") as folder:
        for name in ("pgfanout", "tests"):
            shutil.copytree(REPOSITORY / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        mutation.apply(Path(folder, "pgfanout"))
        command = [sys.executable, "-m", "tests.faults", "--seed", str(seed), "--schedules", "6", "--until-broken"]
        command.append("--history" if mutation.history else "--no-history")
        if mutation.faults:
            command += ["--faults", ",".join(mutation.faults)]
        # First on the path, also of the servers that the harness starts: an installed package would come before it.
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode == 0:
        return "", ""
    broken = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    if not broken or done.returncode != 1:
        return "", f"the harness itself failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return broken[0][:100], ""


if __name__ == "__main__":
    sys.exit(main())
