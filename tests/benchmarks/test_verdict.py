"""The verdict on writers: each round's ratio, the median of them, and the limits."""

from __future__ import annotations

from benchmarks.measurement import Measurement, paired
from benchmarks.scenario import HISTORY, MANY_WRITERS, NOTIFY, WRITERS
from benchmarks.verdict import Verdict, judge


def rounds(way: str, writers: int, name: str, *values: float) -> list[Measurement]:
    return [
        Measurement(WRITERS, way, writers, round_, unit="writers", figures={name: value})
        for round_, value in enumerate(values, 1)
    ]


def verdicts(measurements: list[Measurement]) -> list[Verdict]:
    return [each for each in judge(measurements) if each.reach.endswith("x notify")]


def test_a_ratio_is_of_the_same_round() -> None:
    ours = rounds(HISTORY, 1, "p50", 3, 4, 5)
    assert paired(ours, rounds(NOTIFY, 1, "p50", 1, 2, 4), "p50") == [3, 2, 1.25]
    assert paired(ours, rounds(NOTIFY, 1, "p50", 1, 2), "p50") == [3, 2]
    assert paired(ours, rounds(NOTIFY, 1, "p50", 0), "p50") == []


def test_one_writer_may_take_half_as_long_again() -> None:
    other = rounds(NOTIFY, 1, "p50", 1, 1, 2)
    assert verdicts(rounds(HISTORY, 1, "p50", 1.5, 1.2, 9) + other)[0].met is True
    assert verdicts(rounds(HISTORY, 1, "p50", 1.6, 1.2, 9) + other)[0].met is False


def test_many_writers_must_reach_most_of_the_rate() -> None:
    other = rounds(NOTIFY, MANY_WRITERS, "rate", 1000, 1000, 2000)
    met = verdicts(rounds(HISTORY, MANY_WRITERS, "rate", 700, 800, 200) + other)[1]
    assert met.met is True
    assert met.measured == "0.70, rounds 0.10 to 0.80 (700.00 : 1,000.00 trans./s)"
    assert verdicts(rounds(HISTORY, MANY_WRITERS, "rate", 690, 800, 200) + other)[1].met is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert [each.met for each in verdicts(rounds(HISTORY, 1, "p50", 1))] == [None, None]
