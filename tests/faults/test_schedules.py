"""A short fixed selection of the fault harness: every fault once, against real servers; some of them with history."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .baseline import Baseline
from .faults import drawable
from .schedule import Schedule
from .world import World

SEED = 2026
SIZE = 4
WITH_HISTORY = (
    ("server-killed", "connections-cut", "worker-killed", "churn"),
    ("listeners-terminated", "network-frozen", "workers-replaced", "starved"),
    ("garbage", "bytes-corrupted", "worker-stopped"),
    ("backup-restored", "crowd-comes-back"),
    ("standby-promoted", "past-the-log"),
    ("log-truncated", "numbers-forged", "away-at-start"),
    ("tenant-deleted", "clock-ahead", "bulk-import"),
)


def selection() -> list[list[str]]:
    """All faults in schedules of a few, each with faults of several tracks."""
    names = drawable(False)
    count = -(-len(names) // SIZE)
    return [names[first::count] for first in range(count)]


@pytest.fixture(scope="module")
def world(postgres_programs: None) -> Iterator[World]:
    with World(preload=True) as world:
        yield world


@pytest.fixture(scope="module")
def baseline(world: World) -> Baseline:
    return Baseline.settled(world)


@pytest.fixture(scope="module")
def world_with_history(postgres_programs: None) -> Iterator[World]:
    with World(history=True) as world:
        yield world


@pytest.fixture(scope="module")
def baseline_with_history(world_with_history: World) -> Baseline:
    return Baseline.settled(world_with_history)


@pytest.mark.parametrize("faults", selection(), ids="+".join)
def test_no_fault_leaves_a_silent_gap_or_anything_behind(world: World, baseline: Baseline, faults: list[str]) -> None:
    index = selection().index(faults)
    outcome = Schedule(SEED, index, exactly=faults).run(world, baseline)
    assert outcome.broken == []
    assert outcome.silent == 0
    assert outcome.deliveries > 0


@pytest.mark.parametrize("faults", WITH_HISTORY, ids="+".join)
def test_with_history_every_gap_is_filled_or_told_to_those_whom_it_concerns(
    world_with_history: World, baseline_with_history: Baseline, faults: tuple[str, ...]
) -> None:
    outcome = Schedule(SEED, WITH_HISTORY.index(faults), exactly=faults).run(world_with_history, baseline_with_history)
    assert outcome.broken == []
    assert (outcome.needless, outcome.silent, outcome.duplicates) == (0, 0, 0)
    assert outcome.deliveries > 0
    assert outcome.readings.replays > 0
