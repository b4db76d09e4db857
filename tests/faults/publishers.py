"""Publishers: threads that publish in every way the library offers, each drawn from its seed."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import psycopg

from pgfanout import NotifyHub, TenantId

from .commitlog import MARK
from .ledger import Ledger, Sent
from .record import Topic
from .topics import kind_of, spelled

__all__ = ["Publisher", "foreign_envelope"]

_ENCODINGS = ("UTF8", "LATIN1", "SQL_ASCII", "UTF8")
_TYPES = ("", "", "order.created", "order.updated", "größe")
_FILLERS = (
    "",
    "plain",
    "Grüße",
    "\u2028 line \u2029",
    "a\nb\r\nc\rd",
    "data: x\n\nevent: close",
    "\U0001f600" * 3,
    "\\u0041",
)

_LARGE = 0.01
"""The part of the events that are too large to be notified, which only a history takes."""

_LINE_ENDS = (b"", b"", b"", b"\n", b"\r", b"\r\n")

Connect = Callable[[str], "psycopg.Connection[Any]"]
HubOf = Callable[["psycopg.Connection[Any]"], NotifyHub]


class Publisher:
    """One thread with one connection, which it opens anew when it is lost.

    A transaction publishes one event or a whole burst, in one call or several, and commits, rolls back, or rolls a
    savepoint back. Beside each event it marks the commit log. `hub_of` makes a hub whose executor is its connection.
    With `history`, another language's service publishes into the log; a plain notification is in none.
    """

    def __init__(
        self,
        seed: str,
        hub: NotifyHub,
        ledger: Ledger,
        topics: Sequence[Topic],
        connect: Connect,
        hub_of: HubOf,
        *,
        history: bool = False,
    ) -> None:
        self._random = random.Random(seed)
        self._hub = hub
        self._ledger = ledger
        self._topics = topics
        self._connect = connect
        self._hub_of = hub_of
        self._history = history
        self._encoding = self._random.choice(_ENCODINGS)
        self._pause = self._random.choice((0.0, 0.002, 0.01, 0.03))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"publisher {seed}", daemon=True)
        self.failures: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self._thread.name} hangs"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._connect(self._encoding) as connection, self._hub_of(connection) as self._bound_hub:
                    while not self._stop.wait(self._pause * self._random.random()):
                        self._transaction(connection)
            except psycopg.Error:
                self._stop.wait(0.05)  # a fault: what it has done to a commit, the log tells
            except Exception as error:
                self.failures.append(repr(error))
                return

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        draw = self._random.random()
        ways = ((0.55, self._commit), (0.70, self._burst), (0.80, self._roll_back), (0.90, self._savepoint))
        way = next((way for share, way in ways if draw < share), self._foreign)
        way(connection)

    def _commit(self, connection: psycopg.Connection[Any]) -> None:
        sents = [self._publish(connection) for _ in range(self._random.randint(1, 4))]
        _commit(connection, sents)

    def _burst(self, connection: psycopg.Connection[Any]) -> None:
        topic = self._random.choice(self._topics)
        sents = [self._new(topic) for _ in range(self._random.choice((10, 40, 80)))]
        self._mark(connection, sents)
        events = [(topic.channel, self._tenant(sent), sent.payload, sent.type) for sent in sents]
        self._hub.publish_many(events, executor=connection)
        _commit(connection, sents)

    def _roll_back(self, connection: psycopg.Connection[Any]) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._publish(connection)
        connection.rollback()

    def _savepoint(self, connection: psycopg.Connection[Any]) -> None:
        sents = [self._publish(connection)]
        with connection.transaction(force_rollback=True):
            self._publish(connection)
        sents.append(self._publish(connection))
        _commit(connection, sents)

    def _foreign(self, connection: psycopg.Connection[Any]) -> None:
        """As a service in another language does it: by SQL, without an id, with a field that nobody knows."""
        sent = self._new(self._random.choice(self._topics))
        if not sent.payload.isascii():
            connection.rollback()
            return
        self._mark(connection, [sent])
        if self._history:
            parameters = (sent.topic.channel, spelled(sent.topic.tenant), sent.payload.decode(), sent.type)
            connection.execute("SELECT pgfanout.publish(%s, %s, %s, %s)", parameters)
        else:
            sent.has_id = False
            text = foreign_envelope(sent.topic, sent.payload.decode(), sent.type)
            connection.execute("SELECT pg_notify('pgfanout_events', %s)", (text,))
        _commit(connection, [sent])

    def _publish(self, connection: psycopg.Connection[Any]) -> Sent:
        sent = self._new(self._random.choice(self._topics))
        self._mark(connection, [sent])
        way = self._random.choice(("connection", "connection", "cursor", "block", "hub"))
        if way == "block":
            with connection.transaction() as block:
                self._send(self._hub, sent, block)
        elif way == "hub":
            self._send(self._bound_hub, sent, None)
        else:
            self._send(self._hub, sent, connection if way == "connection" else connection.cursor())
        return sent

    def _send(self, hub: NotifyHub, sent: Sent, executor: Any) -> None:
        hub.publish(sent.topic.channel, self._tenant(sent), sent.payload, type=sent.type, executor=executor)

    def _tenant(self, sent: Sent) -> TenantId:
        return kind_of(sent.topic.tenant, self._random)

    def _mark(self, connection: psycopg.Connection[Any], sents: Sequence[Sent]) -> None:
        connection.cursor().executemany(MARK, [(str(sent.key),) for sent in sents])

    def _new(self, topic: Topic) -> Sent:
        key = self._ledger.next_key()
        filler = (self._random.choice(_FILLERS) * self._random.choice((1, 1, 1, 50)))[:1500]
        ascii_only = self._random.random() < 0.5
        end = self._random.choice(_LINE_ENDS)
        if self._history and self._random.random() < _LARGE:
            filler = "large " * self._random.choice((1_500, 4_000, 20_000))
        text = json.dumps({"key": key, "filler": filler}, ensure_ascii=ascii_only, indent=1 if end else None)
        payload = text.encode().replace(b"\n", end)
        sent = Sent(key, topic, payload, self._random.choice(_TYPES), has_id=True)
        self._ledger.add(sent)
        return sent


def foreign_envelope(topic: Topic, payload: str, type: str = "", **more: object) -> str:
    """A notification as a service in another language makes it, with further fields. Without spaces, as the log's own
    notifications are: it is not to be told from those by its looks."""
    envelope = {
        "version": 7,
        "channel": topic.channel,
        "tenant_id": spelled(topic.tenant),
        "payload": "PAYLOAD",
        "type": type,
        **more,
    }
    return json.dumps(envelope, separators=(",", ":")).replace('"PAYLOAD"', payload)


def _commit(connection: psycopg.Connection[Any], sents: Sequence[Sent]) -> None:
    begun = monotonic()
    for sent in sents:
        sent.begun = begun
    connection.commit()
