"""The oracle: what was committed, in its order, and whether a subscriber's record is true to it.

It shares nothing with the library but the promise: between two events that a subscriber receives one after the other,
nothing of its topics was lost, or a refresh stands between them. With history a refresh is as bad as a loss.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["REFRESH", "Check", "Item", "Ledger", "Oracle", "Record", "Sent", "Topic"]


class Topic(NamedTuple):
    channel: str
    tenant: str


@dataclass(eq=False)
class Sent:
    """An event that a publisher tried to publish; whether it was committed, the server's log tells."""

    key: int
    topic: Topic
    payload: bytes
    type: str
    begun: float = float("inf")
    """Monotonic time just before its commit was asked for; infinity if that never came."""
    has_id: bool = False
    """Whether it has to arrive with an id, which no other event has."""


class Ledger:
    """Every event that was tried. Payloads are unique, so that what arrives is known by its bytes.

    `_lock` guards the dict and the count of keys, which no two ledgers of a process share.
    """

    _keys = itertools.count(1)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_payload: dict[bytes, Sent] = {}

    def next_key(self) -> int:
        with self._lock:
            return next(Ledger._keys)

    def add(self, sent: Sent) -> None:
        with self._lock:
            assert sent.payload not in self._by_payload
            self._by_payload[sent.payload] = sent
            # As an event stream has it, in which every line ends alike.
            self._by_payload[re.sub(rb"\r\n?", b"\n", sent.payload)] = sent

    def find(self, payload: bytes) -> Sent | None:
        return self._by_payload.get(payload)

    def all(self) -> list[Sent]:
        with self._lock:
            return list(dict.fromkeys(self._by_payload.values()))


class Item(NamedTuple):
    """Something that a subscriber received, and the monotonic time right after it; a refresh has no payload but where
    it came."""

    payload: bytes
    type: str
    at: float
    id: str = ""


REFRESH = "refresh"


@dataclass(eq=False)
class Record:
    """What one subscriber received, from the moment on at which its subscription was there. With history it goes on
    when the subscriber comes back."""

    name: str
    topics: frozenset[Topic]
    since: float = float("inf")
    items: list[Item] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What the subscriber itself saw that breaks the protocol."""

    def refresh(self, at: float, where: str = "") -> None:
        self.items.append(Item(where.encode(), REFRESH, at))


@dataclass
class Check:
    """The outcome of checking records: counts, and a line for each broken promise."""

    events: int = 0
    told: int = 0
    unfillable: int = 0
    silent: int = 0
    broken: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def breaks(self, kind: str, line: str) -> None:
        self.kinds[kind] += 1
        self.broken.append(f"{kind}: {line}")


class Oracle:
    """The committed events in commit order, against which records are checked.

    With `history` their ids are numbers in that order, and nothing may be told unless the faults were `unfillable`.
    """

    def __init__(
        self, ledger: Ledger, committed: Sequence[Sent], *, history: bool = False, unfillable: bool = False
    ) -> None:
        self.history = history
        self.unfillable = unfillable
        self._ledger = ledger
        self._committed = committed
        self._keys: dict[str, int] = {}
        self._views: dict[frozenset[Topic], tuple[list[Sent], dict[int, int]]] = {}

    def check(self, records: Iterable[Record]) -> Check:
        check = Check()
        for record in records:
            check.events += sum(item.type != REFRESH for item in record.items)
            for line in record.faults:
                check.breaks("protocol", f"{record.name}: {line}")
            _Walk(self, record, check).run()
        return check

    @property
    def size(self) -> int:
        """How many events were committed."""
        return len(self._committed)

    def find(self, payload: bytes) -> Sent | None:
        return self._ledger.find(payload)

    def owns(self, id: str, key: int) -> bool:
        """Whether the id is this event's, and nobody else's."""
        return id != "" and self._keys.setdefault(id, key) == key

    def view(self, topics: frozenset[Topic]) -> tuple[list[Sent], dict[int, int]]:
        """What a subscriber of these topics has to see, and the place of each key in it."""
        if topics not in self._views:
            expected = [sent for sent in self._committed if sent.topic in topics]
            self._views[topics] = expected, {sent.key: place for place, sent in enumerate(expected)}
        return self._views[topics]


class _Walk:
    """One record from its start to its end."""

    def __init__(self, oracle: Oracle, record: Record, check: Check) -> None:
        self._oracle = oracle
        self._record = record
        self._check = check
        self._expected, self._places = oracle.view(record.topics)
        self._next = 0
        self._number = 0
        self._received: set[int] = set()
        # What was asked to commit before the subscription was there isn't owed to it.
        self._owed_since: float | None = record.since

    def run(self) -> None:
        for item in self._record.items:
            if item.type == REFRESH:
                # Who loads now sees everything that was committed by now; what comes later is owed.
                self._owed_since = item.at
                self._refresh(item)
            else:
                self._event(item)
        # Whoever left is owed nothing more; whoever stayed has waited for a last event of each of its topics.

    def _refresh(self, item: Item) -> None:
        if not self._oracle.history:
            return  # a gap counts where something is missing
        if self._oracle.unfillable:
            self._check.unfillable += 1
        else:
            self._check.told += 1
            self._break("told gap", f"a refresh {item.payload.decode()}")

    def _event(self, item: Item) -> None:
        sent = self._oracle.find(item.payload)
        if sent is None:
            self._break("forged", f"nobody sent {item.payload[:80]!r}")
        elif sent.topic not in self._record.topics:
            self._break("wall", f"event {sent.key} of {sent.topic} is none of {sorted(self._record.topics)}")
        elif sent.key not in self._places:
            self._break("rolled back", f"event {sent.key} was never committed")
        elif item.type != sent.type:
            self._break("forged", f"event {sent.key} has the type {item.type!r} instead of {sent.type!r}")
        elif sent.has_id and not self._oracle.owns(item.id, sent.key):
            self._break("forged", f"event {sent.key} has the id {item.id!r}, which is none or another's")
        else:
            self._at(self._places[sent.key], item.id)

    def _at(self, place: int, id: str) -> None:
        key = self._expected[place].key
        if place < self._next:
            twice = key in self._received
            self._break("duplicate" if twice else "order", f"event {key} came {'twice' if twice else 'too late'}")
            return
        self._received.add(key)
        if self._oracle.history and not self._is_next_number(id):
            self._break("order", f"event {key} has the number {id!r} after {self._number}")
        self._skip(place)
        self._next = place + 1
        self._owed_since = None

    def _is_next_number(self, id: str) -> bool:
        before, self._number = self._number, max(self._number, int(id) if id.isdigit() else 0)
        return self._number > before

    def _skip(self, place: int) -> None:
        """The events before `place` did not come: they are lost unless a refresh covers them."""
        lost = self._expected[self._next : place]
        if not lost:
            return
        owed = lost if self._owed_since is None else [sent for sent in lost if sent.begun > self._owed_since]
        if owed:
            self._check.silent += 1
            keys = ", ".join(str(sent.key) for sent in owed[:10])
            self._break("silent gap", f"{len(owed)} of {len(lost)} events that did not come were owed: {keys}")
        elif self._next and not self._oracle.history:
            self._check.told += 1

    def _break(self, kind: str, line: str) -> None:
        self._check.breaks(kind, f"{self._record.name}: {line}")
