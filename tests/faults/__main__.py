"""The fault harness.

    python -m tests.faults [--seed N] [--duration SECONDS | --schedules N] [--schedule N] [--faults NAME,...]
                           [--history | --no-history]

Runs schedule after schedule against real servers and prints a table; the exit status is 1 when a promise was not kept.
Half of the time is without history, the other half with it, unless one of them is asked for.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import logging
import random
import sys
from collections.abc import Iterator
from time import monotonic

from tests.support.processes import session

from .baseline import Baseline
from .faults import FAULTS
from .peace import disturbances
from .report import Report
from .schedule import Outcome, Schedule
from .world import World

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.stacks_after:
        faulthandler.dump_traceback_later(options.stacks_after, repeat=True)
    for logger in ("pgfanout", "psycopg"):
        logging.getLogger(logger).setLevel(logging.DEBUG if options.verbose > 1 else logging.CRITICAL)
    print(f"seed {options.seed}", flush=True)
    broken = False
    for history in (False, True) if options.history is None else (options.history,):
        if not (broken and options.until_broken):
            broken = bool(_half(options, history).broken) or broken
    return 1 if broken else 0


def _half(options: argparse.Namespace, history: bool) -> Report:
    """Run the schedules with or without history."""
    report = Report(history)
    session.begin()
    try:
        with World(preload=options.seed % 2 == 1, history=history) as world:
            _run(world, options, report)
    finally:
        session.finish()
    _complain(report.add_ends())
    print(f"with{'' if history else 'out'} history")
    print(report.table(), flush=True)
    return report


def _run(world: World, options: argparse.Namespace, report: Report) -> None:
    baseline = Baseline.settled(world)
    report.broken += disturbances(world)
    _complain(report.broken)
    for index in _indices(options):
        if report.broken and options.until_broken:
            return
        schedule = Schedule(options.seed, index, options.faults, history=world.history)
        outcome = schedule.run(world, baseline)
        broken = report.add(outcome)
        if broken or options.verbose:
            _tell(schedule, outcome)
        if broken:
            again = f"make faults SEED={options.seed} SCHEDULE={index} HISTORY={int(world.history)}"
            _complain([*broken, f"again: {again}"])


def _tell(schedule: Schedule, outcome: Outcome) -> None:
    print(
        f"{schedule.name}: {outcome.committed} events, {outcome.deliveries} deliveries, {outcome.told} gaps told,"
        f" live again after {outcome.hubs_recovery:.2f} s, the site after {outcome.site_recovery:.2f} s;"
        f" {' '.join(fault.name for fault in schedule.faults)}",
        flush=True,
    )


def _complain(lines: list[str]) -> None:
    for line in lines[:20] + lines[20:][-1:]:
        print(f"  {line}", flush=True)


def _indices(options: argparse.Namespace) -> Iterator[int]:
    if options.schedule is not None:
        yield options.schedule
        return
    end = monotonic() + options.duration / (2 if options.history is None else 1)
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
    parser.add_argument("--history", action=argparse.BooleanOptionalAction, help="default: half of the time")
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
