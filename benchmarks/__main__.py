"""Measure, and tell: a table on standard output; JSON, the table and a plot in files. `--help` has the options.

The exit status is 0 whatever the verdict says, and 1 when nothing could be measured.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

from tests.support.processes import session

from . import results
from .contender import CONTENDERS
from .machine import describe
from .measurement import Measurement
from .options import Options
from .placement import Placement
from .scenarios import measure
from .table import table
from .verdict import judge
from .world import World, missing_reason

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    options = Options.parse(arguments)
    if reason := missing_reason():
        print(f"nothing can be measured here: {reason}", file=sys.stderr)
        return 1
    _raise_descriptor_limit()
    session.begin()
    try:
        _run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        session.finish()
    return 0


def _run(options: Options) -> None:
    skipped = {name: reason for name in options.contenders if (reason := CONTENDERS[name].missing_reason())}
    contenders = [name for name in options.contenders if name not in skipped]
    measurements: list[Measurement] = []
    start = time.monotonic()

    def tell(measurement: Measurement) -> None:
        measurements.append(measurement)
        print(f"{time.monotonic() - start:6.0f} s  {_line(measurement)}", file=sys.stderr, flush=True)

    with World(Placement(options.pinned)) as world:
        machine = describe(world)
        measure(world, options, contenders, tell)
    verdicts = judge(measurements)
    note = "This was a quick run: its sizes are too small to say anything." if options.quick else ""
    text = table(machine, measurements, skipped, verdicts, note)
    print(text, flush=True)
    for path in results.write(options, machine, measurements, skipped, verdicts, text):
        print(f"written: {path}", file=sys.stderr)


def _line(measurement: Measurement) -> str:
    figures = measurement.figures
    parts = [f"{measurement.scenario}, {measurement.streams:,} {measurement.unit}, {measurement.contender}"]
    parts += [f"round {measurement.round}"]
    parts += [f"p99 {figures['p99']:,.2f} ms"] if "p99" in figures else []
    parts += [f"{figures['rate']:,.0f}/s"] if "rate" in figures else []
    parts += [f"{figures['missing']:,.0f} missing"] if figures.get("missing") else []
    return ", ".join(parts) + (f": {measurement.problem}" if measurement.problem else "")


def _raise_descriptor_limit() -> None:
    """Every server inherits it: thousands of sockets are needed, and shells allow 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
