"""What is to be measured, and how long: the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .contender import CONTENDERS

__all__ = ["SCENARIOS", "Options"]

SCENARIOS = {
    "A": "steady: streams at 4 events/s",
    "B": "one event to all, from A",
    "C": "bursts in transactions",
    "D": "one stream at full rate",
    "E": "ordinary requests beside the streams",
    "F": "the thread path",
    "G": "connecting, from A",
    "H": "what publishing with history costs the writer",
    "I": "a crowd that comes back to the history",
    "J": "a quiet topic beside a busy one",
    "K": "a topic for each stream",
}

_OUT = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Options:
    """`sizes` are the streams of A and `bursts` of C as (streams, events, events in a transaction).

    `seconds` is how long a steady window lasts. `rounds` is how often those take turns that are compared by a ratio in
    A, and how often D is run; `burst_rounds` how often a burst. `writer_rounds` is how often the two ways to publish
    take turns in H, for `writer_seconds` each. `crowd` are the browsers of I, which come back `crowd_rounds` times.
    """

    scenarios: frozenset[str]
    contenders: tuple[str, ...]
    sizes: tuple[int, ...]
    bursts: tuple[tuple[int, int, int], ...]
    seconds: float
    rounds: int
    burst_rounds: int
    writer_rounds: int
    writer_seconds: int
    crowd: int
    crowd_rounds: int
    full_rate_events: int
    thread_streams: int
    pinned: bool
    quick: bool
    out: Path

    rate: float = 4.0
    thread_rate: float = 40.0

    def wants(self, *scenarios: str) -> bool:
        return not self.scenarios.isdisjoint(scenarios)

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None) -> Options:
        """From the command line; leaves the program when that is wrong."""
        parser = _parser()
        given = parser.parse_args(arguments)
        _check(parser, "scenario", given.scenarios, SCENARIOS)
        _check(parser, "contender", given.contenders, CONTENDERS)
        quick = given.quick
        sizes = given.sizes or ([50, 200] if quick else [50, 1000, 5000, 9000])
        return cls(
            scenarios=frozenset(given.scenarios or SCENARIOS),
            contenders=tuple(given.contenders or CONTENDERS),
            sizes=tuple(sorted(map(int, sizes))),
            bursts=((100, 100, 50), (100, 200, 100))
            if quick
            else ((1000, 500, 50), (1000, 1000, 100), (5000, 500, 100)),
            seconds=given.seconds or (2.0 if quick else 10.0),
            rounds=given.rounds or (1 if quick else 3),
            burst_rounds=given.rounds or (2 if quick else 5),
            writer_rounds=given.rounds or (1 if quick else 9),
            writer_seconds=1 if quick else 2,
            crowd=100 if quick else 1000,
            crowd_rounds=given.rounds or (1 if quick else 5),
            full_rate_events=10_000 if quick else 100_000,
            thread_streams=50 if quick else 500,
            pinned=not given.no_pin,
            quick=quick,
            out=given.out,
        )


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(CONTENDERS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures pgfanout against other ways to serve the same streams, on this machine, in one run.",
        epilog="scenarios: " + "; ".join(f"{letter} {what}" for letter, what in SCENARIOS.items()),
    )
    parser.add_argument("--scenarios", type=_list, default=[], help="letters, see below; default: all")
    parser.add_argument("--contenders", type=_list, default=[], help=f"of {names}; default: all")
    parser.add_argument("--sizes", type=_list, default=[], help="numbers of streams for A; default: 50,1000,5000,9000")
    parser.add_argument("--seconds", type=float, help="how long a steady window lasts; default: 10")
    parser.add_argument(
        "--rounds", type=int, help="how often what is compared by ratio is repeated; default: 3, C and I: 5, H: 9"
    )
    parser.add_argument("--no-pin", action="store_true", help="let the kernel place the server and all else")
    parser.add_argument("--out", type=Path, default=_OUT, help="where the results go; default: benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    return parser


def _list(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _check(parser: argparse.ArgumentParser, what: str, given: list[str], known: dict[str, object] | object) -> None:
    assert isinstance(known, dict)
    if unknown := [name for name in given if name not in known]:
        parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
