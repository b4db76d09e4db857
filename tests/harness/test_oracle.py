"""The oracle of the fault harness: what it accepts, and what it must not let pass."""

from __future__ import annotations

import pytest

from tests.faults.cause import Cause
from tests.faults.commitlog import Branch, merge
from tests.faults.ledger import Ledger, Sent
from tests.faults.oracle import Check, Oracle
from tests.faults.record import REFRESH, RETURN, Item, Record, Topic

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


# With history: events 1 to 6, whose ids are ten times their keys. 3 and 4 were lost at 4.5 where `LOST` is a cause.

AT = 4.5


def numbered(key: int, at: float = 0.0) -> Item:
    return event(key)._replace(id=str(key * 10), at=at or float(key))


def returns(number: int, at: float) -> Item:
    return Item(b"%d" % number, RETURN, at)


def lost(**fields: object) -> Cause:
    cause = Cause("a fail-over", AT, numbers={"30", "40"})
    vars(cause).update(fields)
    return cause


def check_history(items: list[Item], *causes: Cause, undone: Cause | None = None, **fields: object) -> Check:
    ledger = Ledger()
    sent = {key: Sent(key, MINE, b"%d" % key, "", begun=float(key), has_id=True) for key in range(1, 7)}
    for each in sent.values():
        ledger.add(each)
    record = Record("subscriber", frozenset({MINE}), since=SINCE, items=items, paths=frozenset({"a", "b"}))
    vars(record).update(fields)
    timelines = {} if undone is None else {3: undone, 4: undone}
    of_all = causes if undone is None else (*causes, undone)
    return Oracle(ledger, list(sent.values()), history=True, causes=of_all, lost=timelines, max_replay=3).check(
        [record]
    )


def told(*keys: int) -> list[Item]:
    return [numbered(key) if key else refresh(4.6) for key in keys]


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(told(1, 2, 3, 4, 0, 5, 6), id="all, and a refresh"),
        pytest.param(told(1, 2, 3, 0, 5, 6), id="a part, and a refresh"),
        pytest.param(told(1, 2, 5, 6), id="nothing of what was lost"),
        pytest.param([*told(1, 2, 3, 4), refresh(4.7), *told(2, 5, 6)], id="once more, from a worker that catches up"),
        pytest.param(told(1, 2, 0, 5, 6), id="nothing, and a refresh from a hub that had it"),
        pytest.param([*told(1, 2, 3, 0), returns(50, 4.7), *told(5, 6)], id="a return after the refresh"),
    ],
)
def test_a_lost_timeline_that_is_told_passes(items: list[Item]) -> None:
    result = check_history(items, undone=lost(paths=frozenset({"a"})))
    assert result.broken == []


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        pytest.param(told(1, 2, 3, 4, 5, 6), "silent gap", id="no refresh"),
        pytest.param([*told(1, 2, 3), refresh(3.5), *told(5, 6)], "silent gap", id="a refresh before it was lost"),
        pytest.param([*told(1, 2, 3, 4), *told(5, 0, 6)], "silent gap", id="a refresh too late"),
        pytest.param([*told(1, 2), returns(40, 4.7), *told(5, 6)], "silent gap", id="a return with a lost number"),
        pytest.param(told(1, 2, 4, 0, 5, 6), "silent gap", id="a hole within the lost timeline"),
        pytest.param(told(1, 2, 3, 4, 0, 6), "silent gap", id="a hole behind it"),
        pytest.param(told(1, 2, 3, 4, 0, 0, 5, 6), "needless", id="a refresh too many"),
    ],
)
def test_a_lost_timeline_that_is_not_told_rightly_is_named(items: list[Item], kind: str) -> None:
    assert check_history(items, undone=lost(paths=frozenset({"a"}))).kinds[kind] == 1


def test_who_saw_nothing_of_a_lost_timeline_is_not_to_be_told() -> None:
    items = told(1, 2, 0, 5, 6)
    assert check_history(items, undone=lost(paths=frozenset({"another"}))).needless == 1
    items.insert(2, returns(30, 4.55))
    assert check_history(items, undone=lost(paths=frozenset({"another"}))).broken == []


@pytest.mark.parametrize(
    ("cause", "needless"),
    [
        (Cause("of another topic", 0.0, 9.0, topics=frozenset({OTHER})), 1),
        (Cause("of this topic", 0.0, 9.0, topics=frozenset({MINE})), 0),
        (Cause("on another path", 0.0, 9.0, paths=frozenset({"c"})), 1),
        (Cause("on this path", 0.0, 9.0, paths=frozenset({"a"})), 0),
        (Cause("that came later", 5.0), 1),
    ],
)
def test_a_refresh_has_a_cause_that_concerns_the_reader(cause: Cause, needless: int) -> None:
    assert check_history(told(1, 2, 3, 4, 0, 5, 6), cause).needless == needless


def test_a_cause_that_goes_on_excuses_one_refresh_a_second() -> None:
    flood = Cause("a flood", 1.0, 3.0, each_second=True)
    assert check_history([refresh(float(at)) for at in (1, 2, 3, 4)], flood).needless == 0
    assert check_history([refresh(1 + at / 10) for at in range(9)], flood).needless == 4


def test_what_was_removed_from_the_log_excuses_who_was_behind() -> None:
    removal = Cause("a removal", 2.5, 2.5, removes=True, calm=True, below=20)
    assert check_history(told(1, 2, 0, 3, 4, 5, 6), removal).broken == []
    assert check_history(told(1, 2, 0, 3, 4, 5, 6), removal, prompt=True).needless == 1
    came_back = [numbered(1), returns(10, 2.6), refresh(2.7), *told(3, 4, 5, 6)]
    assert check_history(came_back, removal, prompt=True).broken == []


def test_more_than_may_be_replayed_excuses_a_refresh() -> None:
    assert check_history([numbered(1), refresh(4.6), *told(5, 6)]).broken == []
    assert check_history([numbered(1), refresh(3.6), *told(4, 5, 6)]).needless == 1


def test_what_strangers_notify_is_in_no_log() -> None:
    ledger = Ledger()
    text = ledger.new_strange_payload().encode()
    record = Record("subscriber", frozenset({MINE}), items=[Item(text, "", 1.0)])
    assert Oracle(ledger, [], history=True).check([record]).kinds == {"strange": 1}
    assert Oracle(ledger, []).check([record]).broken == []


@pytest.mark.parametrize(
    ("kept", "branches", "keys", "lost"),
    [
        ([1, 2, 3], [], [1, 2, 3], {}),
        ([1, 2, 5], [Branch([1, 2, 3, 4], 0)], [1, 2, 3, 4, 5], {3: 0, 4: 0}),
        ([1, 5, 6], [Branch([1, 2], 0), Branch([1, 5, 3], 0)], [1, 2, 5, 3, 6], {2: 0, 3: 1}),
        ([1, 2, 5], [Branch([3], 2)], [1, 2, 3, 5], {3: 0}),
        ([5], [Branch([], 0)], [5], {}),
    ],
)
def test_keys_of_a_lost_timeline_stand_where_it_was_left(
    kept: list[int], branches: list[Branch], keys: list[int], lost: dict[int, int]
) -> None:
    assert merge(kept, branches) == (keys, lost)
