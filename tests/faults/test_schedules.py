"""A short fixed selection of the fault harness: every fault once, against real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.need import need
from tests.support.postgres import missing_reason

from .baseline import Baseline
from .faults import FAULTS
from .schedule import Schedule
from .world import World

SEED = 2026
SIZE = 4


def selection() -> list[list[str]]:
    """All faults in schedules of a few, each with faults of several tracks."""
    names = sorted(FAULTS)
    count = -(-len(names) // SIZE)
    return [names[first::count] for first in range(count)]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    reason = missing_reason()
    need(reason is None, str(reason))
    with World(preload=True) as world:
        yield world


@pytest.fixture(scope="module")
def baseline(world: World) -> Baseline:
    return Baseline.settled(world)


@pytest.mark.parametrize("faults", selection(), ids="+".join)
def test_no_fault_leaves_a_silent_gap_or_anything_behind(world: World, baseline: Baseline, faults: list[str]) -> None:
    index = selection().index(faults)
    outcome = Schedule(SEED, index, exactly=faults).run(world, baseline)
    assert outcome.broken == []
    assert outcome.silent == 0
    assert outcome.deliveries > 0
