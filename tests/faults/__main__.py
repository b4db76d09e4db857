"""The fault harness.

    python -m tests.faults [--seed N] [--duration SECONDS | --schedules N] [--schedule N] [--faults NAME,...]

Runs schedule after schedule against real servers and prints a table; the exit status is 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from time import monotonic

from tests.support.processes import session

from .baseline import Baseline
from .faults import FAULTS
from .peace import disturbances
from .schedule import Outcome, Schedule
from .world import World

__all__ = ["Report", "main"]

_END_LIMIT = 2.0
_HEALING_LIMIT = 5.0  # 2 s are promised, from the server's side, to a machine that is not busy


@dataclass
class Report:
    """The sum of many schedules."""

    schedules: int = 0
    committed: int = 0
    deliveries: int = 0
    told: int = 0
    silent: int = 0
    slowest_hub: float = 0.0
    slowest_site: float = 0.0
    stops: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome) -> None:
        self.schedules += 1
        self.committed += outcome.committed
        self.deliveries += outcome.deliveries
        self.told += outcome.told
        self.silent += outcome.silent
        self.slowest_hub = max(self.slowest_hub, outcome.hubs_recovery)
        self.slowest_site = max(self.slowest_site, outcome.site_recovery)
        self.stops += outcome.worker_stops
        self.faults += outcome.faults
        self.broken += [f"schedule {name}: {line}" for line in outcome.broken]

    def judge_times(self) -> None:
        """Of many ends the middle one, since any single one may have met a busy machine."""
        if len(self.stops) >= 3 and median(self.stops) > _END_LIMIT:
            self.broken.append(
                f"end: it takes workers {median(self.stops):.1f} s to end, {_END_LIMIT:g} s are promised"
            )

    def table(self) -> str:
        rows = [
            ("schedules", f"{self.schedules:,}"),
            ("events committed", f"{self.committed:,}"),
            ("deliveries", f"{self.deliveries:,}"),
            ("faults", f"{sum(self.faults.values()):,}"),
            *((f"  {name}", f"{count:,}") for name, count in sorted(self.faults.items())),
            ("gaps told", f"{self.told:,}"),
            ("gaps silent", f"{self.silent:,}"),
            ("other broken promises", f"{len(self.broken) - self.silent:,}"),
            ("slowest recovery, hub", f"{self.slowest_hub:.2f} s"),
            ("slowest recovery, site", f"{self.slowest_site:.2f} s"),
            ("end of a worker, middle", f"{median(self.stops or [0.0]):.2f} s"),
            ("end of a worker, slowest", f"{max(self.stops, default=0.0):.2f} s"),
        ]
        return "\n".join(f"{name:28}{value:>14}" for name, value in rows)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.stacks_after:
        faulthandler.dump_traceback_later(options.stacks_after, repeat=True)
    for logger in ("pgfanout", "psycopg"):
        logging.getLogger(logger).setLevel(logging.DEBUG if options.verbose > 1 else logging.CRITICAL)
    print(f"seed {options.seed}", flush=True)
    report = Report()
    session.begin()
    try:
        with World(preload=options.seed % 2 == 1) as world:
            baseline = Baseline.settled(world)
            report.broken += disturbances(world)
            for line in report.broken:
                print(f"  {line}", flush=True)
            for index in _indices(options):
                schedule = Schedule(options.seed, index, options.faults)
                outcome = schedule.run(world, baseline)
                if outcome.hubs_recovery > _HEALING_LIMIT:
                    outcome.broken.append(f"heals: a hub was live {outcome.hubs_recovery:.1f} s after the last fault")
                report.add(schedule.name, outcome)
                _tell(schedule, outcome, options.verbose)
                if outcome.broken and options.until_broken:
                    break
    finally:
        session.finish()
    report.judge_times()
    print(report.table())
    return 1 if report.broken else 0


def _tell(schedule: Schedule, outcome: Outcome, verbose: bool) -> None:
    names = " ".join(fault.name for fault in schedule.faults)
    if verbose or outcome.broken:
        print(
            f"{schedule.name}: {outcome.committed} events, {outcome.deliveries} deliveries, {outcome.told} gaps told,"
            f" live again after {outcome.hubs_recovery:.2f} s, the site after {outcome.site_recovery:.2f} s; {names}",
            flush=True,
        )
    for line in outcome.broken[:20]:
        print(f"  {line}", flush=True)
    if outcome.broken:
        seed, index = schedule.name.split("/")
        print(f"  again: make faults SEED={seed} SCHEDULE={index}", flush=True)


def _indices(options: argparse.Namespace) -> Iterator[int]:
    if options.schedule is not None:
        yield options.schedule
        return
    end = monotonic() + options.duration
    for index in itertools.count():
        if (index >= options.schedules) if options.schedules else (monotonic() >= end):
            return
        yield index


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault harness of pgfanout.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a random one, printed")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds after which no further schedule begins")
    parser.add_argument("--schedules", type=int, default=0, help="run so many schedules instead")
    parser.add_argument("--schedule", type=int, help="run this one alone")
    parser.add_argument("--faults", type=lambda text: [name for name in text.split(",") if name], default=[])
    parser.add_argument("--until-broken", action="store_true", help="end with the first schedule that breaks a promise")
    parser.add_argument("--verbose", action="count", default=0, help="a line for each schedule; twice: the logs, too")
    parser.add_argument("--stacks-after", type=float, default=0.0, help="print all stacks after so many seconds")
    options = parser.parse_args(arguments)
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(sorted(FAULTS))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
