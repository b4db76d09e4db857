"""The oracle: what was committed, in its order, and whether a subscriber's record is true to it.

It shares nothing with the library but the promise: between two events that a subscriber receives one after the other,
nothing of its topics was lost, or a refresh stands between them. With history a refresh without a cause is as bad as a
loss. Events of a timeline that was lost, with its server, were right when they came; but after them, and for a
subscriber that comes back with a number of that timeline, a refresh stands before anything that is newer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .cause import Cause
from .ledger import Ledger, Sent
from .record import REFRESH, RETURN, Item, Record, Topic

__all__ = ["Check", "Oracle"]


@dataclass
class Check:
    """The outcome of checking records: counts, and a line for each broken promise."""

    events: int = 0
    told: int = 0
    needless: int = 0
    silent: int = 0
    broken: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def breaks(self, kind: str, line: str) -> None:
        self.kinds[kind] += 1
        self.broken.append(f"{kind}: {line}")


class Oracle:
    """The committed events in commit order, against which records are checked; `lost` tells by key which of them a
    cause has undone.

    With `history` ids are numbers in that order, and nothing may be told but what one of the `causes` excuses, and to a
    reader that missed at least `max_replay` events.
    """

    def __init__(
        self,
        ledger: Ledger,
        committed: Sequence[Sent],
        *,
        history: bool = False,
        causes: Sequence[Cause] = (),
        lost: Mapping[int, Cause] | None = None,
        max_replay: int = 10_000,
    ) -> None:
        self.history = history
        self.causes = sorted(causes, key=lambda cause: cause.since)
        self.lost = lost or {}
        self.max_replay = max_replay
        self._ledger = ledger
        self._committed = committed
        self._keys: dict[str, int] = {}
        self._views: dict[frozenset[Topic], tuple[list[Sent], dict[int, int]]] = {}

    def check(self, records: Iterable[Record]) -> Check:
        check = Check()
        for record in records:
            check.events += len(record.events)
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

    def is_strange(self, payload: bytes) -> bool:
        return self._ledger.is_strange(payload)

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
        self._budgets = {cause: cause.budget(record) for cause in oracle.causes} if oracle.history else {}
        self._unexcused: list[Item] = []
        self._lost_by: Cause | None = None
        """What has undone an event that the subscriber has, or knows the number of, and was not told about."""
        self._begins_anew = False
        """Whether it was told of that, and has had nothing since."""

    def run(self) -> None:
        for item in self._record.items:
            if item.type == RETURN:
                self._return(item)
            elif item.type == REFRESH:
                # Who loads now sees everything that was committed by now; what comes later is owed.
                self._owed_since = item.at
                self._refresh(item)
            else:
                self._event(item)
        # Whoever left is owed nothing more; whoever stayed has waited for a last event of each of its topics.
        self._tell_needless()

    def _return(self, item: Item) -> None:
        for cause in set(self._oracle.lost.values()):
            if item.at >= cause.since and item.payload.decode() in cause.numbers:
                self._lost_by = cause

    def _refresh(self, item: Item) -> None:
        if self._lost_by is not None and item.at >= self._lost_by.since:
            self._lost_by = None
            self._number = 0
            self._begins_anew = True
        if not self._oracle.history:
            return  # a gap counts where something is missing
        cause = next((c for c in self._oracle.causes if c.since <= item.at and self._budgets[c] > 0), None)
        if cause is None:
            self._unexcused.append(item)
        else:
            self._budgets[cause] -= 1
            self._check.told += 1

    def _event(self, item: Item) -> None:
        sent = self._oracle.find(item.payload)
        if sent is None:
            self._unknown(item)
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

    def _unknown(self, item: Item) -> None:
        if not self._oracle.is_strange(item.payload):
            self._break("forged", f"nobody sent {item.payload[:80]!r}")
        elif self._oracle.history:
            self._break("strange", f"{item.payload[:80]!r} with the id {item.id!r} is in no log")

    def _at(self, place: int, id: str) -> None:
        if self._begins_anew:
            # Nobody can know what it had before. It goes on where its worker stands, which may have to catch up.
            self._begins_anew = False
            if place < self._next:
                self._next = place
                self._received.clear()
        key = self._expected[place].key
        if place < self._next:
            twice = key in self._received
            self._break("duplicate" if twice else "order", f"event {key} came {'twice' if twice else 'too late'}")
            return
        self._received.add(key)
        self._change_of_timelines(key)
        if self._oracle.history and not self._is_next_number(id):
            self._break("order", f"event {key} has the number {id!r} after {self._number}")
        self._skip(place)
        self._next = place + 1
        self._owed_since = None

    def _change_of_timelines(self, key: int) -> None:
        """From a lost timeline nobody comes to another one without a refresh."""
        before, self._lost_by = self._lost_by, self._oracle.lost.get(key)
        if before is not None and before is not self._lost_by:
            self._number = 0
            self._check.silent += 1
            self._break("silent gap", f"event {key} followed on what {before.what} had undone, without a refresh")

    def _is_next_number(self, id: str) -> bool:
        before, self._number = self._number, max(self._number, int(id) if id.isdigit() else 0)
        return self._number > before

    def _skip(self, place: int) -> None:
        """The events before `place` did not come: they are lost unless a refresh covers them, or they were undone."""
        timeline = self._oracle.lost.get(self._expected[place].key)
        lost = [sent for sent in self._expected[self._next : place] if self._is_of(sent, timeline)]
        if lost:
            self._judge_loss(lost)
        self._tell_needless()

    def _is_of(self, sent: Sent, timeline: Cause | None) -> bool:
        return self._oracle.lost.get(sent.key, timeline) is timeline

    def _judge_loss(self, lost: list[Sent]) -> None:
        since = self._owed_since
        owed = lost if since is None else [sent for sent in lost if sent.begun > since]
        if owed:
            self._check.silent += 1
            keys = ", ".join(str(sent.key) for sent in owed[:10])
            self._break("silent gap", f"{len(owed)} of {len(lost)} events that did not come were owed: {keys}")
        elif self._next and not self._oracle.history:
            self._check.told += 1
        elif self._unexcused and (len(lost) >= self._oracle.max_replay or self._were_taken(lost)):
            self._unexcused.clear()
            self._check.told += 1

    def _were_taken(self, lost: list[Sent]) -> bool:
        return any(cause.took(sent) for cause in self._oracle.causes for sent in lost)

    def _tell_needless(self) -> None:
        for item in self._unexcused:
            self._check.needless += 1
            self._break("needless", f"a refresh {item.payload.decode()}, and nothing could have been missed")
        self._unexcused.clear()

    def _break(self, kind: str, line: str) -> None:
        self._check.breaks(kind, f"{self._record.name}: {line}")
