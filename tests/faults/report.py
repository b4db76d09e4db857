"""The report of a run: the sum of its schedules, and whether its times keep the promises."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from .readings import Readings
from .schedule import Outcome

__all__ = ["Report"]

# Promised are 2 s from the server's side, to a machine that is not busy; finding a dead connection takes the rest, and
# in the site a browser's way back.
_HUB_LIMIT = 4.0
_SITE_LIMIT = 8.0
# Of many ends the middle one counts, since any single one may have met a busy machine.
_END_LIMIT = 2.0
_ENOUGH_ENDS = 3


@dataclass
class Report:
    """`broken` has a line for each promise that was not kept. With `history` the table has what that is for."""

    history: bool = False
    schedules: int = 0
    committed: int = 0
    deliveries: int = 0
    told: int = 0
    needless: int = 0
    silent: int = 0
    duplicates: int = 0
    readings: Readings = field(default_factory=Readings)
    slowest_hub: float = 0.0
    slowest_site: float = 0.0
    ends: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> list[str]:
        """Add a schedule's outcome; the promises that it broke."""
        self.schedules += 1
        self.committed += outcome.committed
        self.deliveries += outcome.deliveries
        self.told += outcome.told
        self.needless += outcome.needless
        self.silent += outcome.silent
        self.duplicates += outcome.duplicates
        self.readings += outcome.readings
        self.slowest_hub = max(self.slowest_hub, outcome.hubs_recovery)
        self.slowest_site = max(self.slowest_site, outcome.site_recovery)
        self.ends += outcome.worker_ends
        self.faults += outcome.faults
        broken = outcome.broken + _late("a hub", outcome.hubs_recovery, _HUB_LIMIT)
        broken += _late("the site", outcome.site_recovery, _SITE_LIMIT)
        self.broken += broken
        return broken

    def add_ends(self) -> list[str]:
        """Judge how long workers took to end; to be called last."""
        middle = self._middle_end()
        if len(self.ends) < _ENOUGH_ENDS or middle <= _END_LIMIT:
            return []
        line = f"end: workers take {middle:.1f} s to end, {_END_LIMIT:g} s are promised"
        self.broken.append(line)
        return [line]

    def table(self) -> str:
        rows = [
            ("schedules", f"{self.schedules:,}"),
            ("events committed", f"{self.committed:,}"),
            ("deliveries", f"{self.deliveries:,}"),
            ("faults", f"{sum(self.faults.values()):,}"),
            *((f"  {name}", f"{count:,}") for name, count in sorted(self.faults.items())),
            ("gaps told", f"{self.told:,}"),
            ("needless", f"{self.needless:,}"),
            ("gaps silent", f"{self.silent:,}"),
            *self._history_rows(),
            ("other broken promises", f"{self._otherwise():,}"),
            ("slowest recovery, hub", f"{self.slowest_hub:.2f} s"),
            ("slowest recovery, site", f"{self.slowest_site:.2f} s"),
            ("end of a worker, middle", f"{self._middle_end():.2f} s"),
            ("end of a worker, slowest", f"{max(self.ends, default=0.0):.2f} s"),
        ]
        return "\n".join(f"{name:28}{value:>14}" for name, value in rows)

    def _history_rows(self) -> list[tuple[str, str]]:
        if not self.history:
            return []
        return [
            ("duplicates", f"{self.duplicates:,}"),
            ("replays", f"{self.readings.replays:,}"),
            ("fills", f"{self.readings.fills:,}"),
        ]

    def _otherwise(self) -> int:
        named = self.silent + self.needless + (self.duplicates if self.history else 0)
        return len(self.broken) - named

    def _middle_end(self) -> float:
        return median(self.ends or [0.0])


def _late(what: str, seconds: float, limit: float) -> list[str]:
    return [f"heals: {what} was live {seconds:.1f} s after the last fault"] if seconds > limit else []
