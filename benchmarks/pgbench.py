"""pgbench, which comes with PostgreSQL: several writers that run one script's transaction again and again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tests.support.data_directory import binaries, environment
from tests.support.processes import session

from .helper import helper, output

__all__ = ["Pgbench", "Report", "latencies", "report"]

_START_LIMIT = 30.0
_RATE = re.compile(r"^tps = ([0-9.]+) ", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: ([0-9]+) ", re.MULTILINE)
_STATEMENT = re.compile(r"^ +([0-9.]+) +[0-9]+ +(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Report:
    """Transactions a second, and the mean milliseconds of each statement of the script."""

    rate: float
    statements: Mapping[str, float]


def report(text: str) -> Report:
    """What pgbench has printed. Raises RuntimeError when transactions have failed or the text is another's."""
    rate, failed = _RATE.search(text), _FAILED.search(text)
    if rate is None or failed is None:
        raise RuntimeError(f"not a report of pgbench: {text[:200]!r}")
    if int(failed[1]):
        raise RuntimeError(f"pgbench had {failed[1]} failed transactions")
    return Report(float(rate[1]), {statement: float(ms) for ms, statement in _STATEMENT.findall(text)})


def latencies(lines: Iterable[str]) -> list[float]:
    """The milliseconds of each transaction in a log of pgbench (client, count, microseconds, ...), ascending."""
    return sorted(int(line.split()[2]) / 1000 for line in lines)


class Pgbench:
    """A script that `writers` run for `seconds`, each on a connection of its own."""

    def __init__(self, script: str, version: int, url: str, writers: int, seconds: int) -> None:
        self._home = session.directory("pgbench")
        self._seconds = seconds
        self._command = [str(binaries(version) / "pgbench"), "--no-vacuum", "--protocol=prepared", "--jobs=1"]
        self._command += [f"--client={writers}", f"--time={seconds}", f"--file={self._home / 'script'}"]
        self._command += ["--report-per-command", "--log", f"--log-prefix={self._home / 'log'}", url]
        (self._home / "script").write_text(script, encoding="utf-8")

    def start(self) -> AbstractContextManager[Popen[str]]:
        """The running pgbench; it ends with the block at the latest."""
        return helper(self._command, environment())

    def end(self, process: Popen[str]) -> tuple[Report, list[float]]:
        """Wait until the time is over; the report, and the milliseconds of every transaction, ascending."""
        text = output(process, self._seconds + _START_LIMIT)
        return report(text), latencies(line for log in self._logs() for line in _lines(log))

    def _logs(self) -> list[Path]:
        return sorted(self._home.glob("log.*"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
