"""A measurement, and what several rounds of it have in the middle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .load import Opening, Window

__all__ = ["Measurement", "figures_of", "middle", "opening_figures", "paired", "select"]


@dataclass
class Measurement:
    """One contender's figures in one round of one scenario.

    Units: `p50`, `p99`, `max` in ms; `rate` in deliveries/s; `cpu`, `client_cpu`, `connect` in s; `memory` in KiB for
    each stream; `rss` in MiB; the rest are counts. Of writers, `rate` is in transactions/s, and all else in ms.
    `problem` tells what went wrong, "" when nothing did; a measurement that could not be made has no figures. `unit` is
    what there are `streams` of.
    """

    scenario: str
    contender: str
    streams: int
    round: int = 1
    transaction: int = 1
    problem: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    unit: str = "streams"


def opening_figures(opening: Opening) -> dict[str, float]:
    return {"open": opening.streams, "refused": opening.refused, "connect": opening.seconds}


def figures_of(window: Window, *, rate: float, cpu: float) -> dict[str, float]:
    """A window's figures, with its deliveries/s and the server's CPU seconds."""
    return {
        "delivered": window.delivered,
        "missing": window.missing,
        "duplicates": window.duplicates,
        "refreshes": window.refreshes,
        "closed": window.closed,
        "p50": window.p50,
        "p99": window.p99,
        "max": window.max,
        "rate": rate,
        "cpu": cpu,
        "client_cpu": window.cpu,
    }


def select(
    measurements: Iterable[Measurement],
    scenario: str,
    contender: str | None = None,
    streams: int | None = None,
    transaction: int | None = None,
) -> list[Measurement]:
    """Those with figures, of a scenario and of whatever else is given."""
    return [
        each
        for each in measurements
        if each.figures
        and each.scenario == scenario
        and contender in (None, each.contender)
        and streams in (None, each.streams)
        and transaction in (None, each.transaction)
    ]


def middle(measurements: Sequence[Measurement]) -> dict[str, float]:
    """The median of each figure over the rounds; empty when there are none."""
    names = {name: None for each in measurements for name in each.figures}
    return {name: median(each.figures[name] for each in measurements if name in each.figures) for name in names}


def paired(ours: Iterable[Measurement], other: Iterable[Measurement], name: str) -> list[float]:
    """A figure's ratio in each round that both have."""
    theirs = {each.round: each.figures[name] for each in other}
    return [each.figures[name] / theirs[each.round] for each in ours if theirs.get(each.round)]
