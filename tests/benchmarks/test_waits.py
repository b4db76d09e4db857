"""Looks at waiting sessions become shares, and shares milliseconds of a transaction."""

from __future__ import annotations

import pytest

from benchmarks.waits import Waits, milliseconds


def test_a_share_is_of_all_looks_at_all_sessions() -> None:
    waits = Waits("pgbench", 4)
    waits.add({"advisory": 3, "": 1})
    waits.add({"advisory": 1, "WalSync": 1, "": 2})
    assert waits.share("advisory") == 0.5
    assert waits.share("WalSync") == 0.125
    assert waits.share("object") == 0


def test_a_look_before_all_sessions_are_there_does_not_count() -> None:
    waits = Waits("pgbench", 4)
    waits.add({"advisory": 3})
    waits.add({})
    assert waits.share("advisory") == 0


def test_writers_that_all_wait_all_the_time_wait_as_long_as_a_transaction_takes() -> None:
    assert milliseconds(1, 16, 2000) == pytest.approx(8)
    assert milliseconds(0.25, 1, 1000) == pytest.approx(0.25)
