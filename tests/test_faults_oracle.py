"""The oracle of the fault harness: what it accepts, and what it must not let pass."""

from __future__ import annotations

import pytest

from .faults.ledger import Ledger, Sent
from .faults.oracle import Check, Oracle
from .faults.record import REFRESH, Item, Record, Topic

MINE, OTHER = Topic("orders", "mine"), Topic("orders", "other")
SINCE = 0.5


def event(key: int) -> Item:
    return Item(b"%d" % key, "", float(key))


def refresh(at: float) -> Item:
    return Item(b"", REFRESH, at)


def check(items: list[Item], committed: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Check:
    """Events 1 to 6 of one topic, committed at the time of their number; 9 is another tenant's."""
    ledger = Ledger()
    sent = {
        key: Sent(key, OTHER if key == 9 else MINE, b"%d" % key, "", begun=float(key)) for key in (1, 2, 3, 4, 5, 6, 9)
    }
    for each in sent.values():
        ledger.add(each)
    record = Record("subscriber", frozenset({MINE}), since=SINCE, items=items)
    return Oracle(ledger, [sent[key] for key in (*committed, 9)]).check([record])


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([event(k) for k in (1, 2, 3, 4, 5)], 0),
        ([event(1), refresh(4.5), event(5)], 1),
        ([event(1), event(2), refresh(2.5), event(3), event(4), event(5)], 0),
        ([event(1), refresh(1.5), refresh(3.5), event(4), event(5)], 1),
        ([event(1), event(2)], 0),
    ],
)
def test_what_is_whole_or_told_passes(items: list[Item], told: int) -> None:
    result = check(items)
    assert result.broken == []
    assert (result.told, result.silent) == (told, 0)


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        pytest.param([event(1), event(3), event(4), event(5)], "silent gap", id="a hole"),
        pytest.param([event(2), event(3), event(4), event(5)], "silent gap", id="a missing start"),
        pytest.param([event(1), refresh(1.5), event(4), event(5)], "silent gap", id="a refresh that came too early"),
        pytest.param([event(1), event(3), event(2), event(4), event(5)], "order", id="two that changed places"),
        pytest.param([event(1), event(1), event(2), event(3), event(4), event(5)], "duplicate", id="one twice"),
        pytest.param([event(k) for k in (1, 2, 3, 4, 5, 6)], "rolled back", id="one that was not committed"),
        pytest.param([event(k) for k in (1, 2, 3, 4, 5, 9)], "wall", id="one of another tenant"),
        pytest.param([event(k) for k in (1, 2, 3, 4, 5, 7)], "forged", id="one that nobody sent"),
        pytest.param([event(1)._replace(type="x")] + [event(k) for k in (2, 3, 4, 5)], "forged", id="another type"),
    ],
)
def test_what_is_broken_is_named(items: list[Item], kind: str) -> None:
    assert check(items).kinds[kind] >= 1


def test_what_was_on_its_way_when_the_subscription_began_is_not_owed() -> None:
    ledger = Ledger()
    early, late = Sent(1, MINE, b"1", "", begun=0.4), Sent(2, MINE, b"2", "", begun=0.6)
    ledger.add(early)
    ledger.add(late)
    record = Record("subscriber", frozenset({MINE}), since=0.5, items=[Item(b"2", "", 1.0)])
    assert Oracle(ledger, [early, late]).check([record]).broken == []
