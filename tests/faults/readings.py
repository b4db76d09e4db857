"""Readings: how often the hubs of a world have read their history."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .world import World

__all__ = ["Readings"]

_Counts = tuple[int, int]


@dataclass(frozen=True)
class Readings:
    """`replays` for a reader that came back or was too slow, `fills` by a hub that listened again. What a worker of the
    site had read that has ended since, nobody knows."""

    replays: int = 0
    fills: int = 0
    _by_process: dict[str, _Counts] = field(default_factory=dict)

    @classmethod
    def of(cls, world: World) -> Readings:
        """Zero where there is no history."""
        if not world.history:
            return cls()
        counts = {name: _counts(asdict(hub.stats())) for name, hub in world.hubs.items()}
        insides = {name: world.inside(name) for name in world.sites}
        of_sites = {f"{name} {inside['pid']}": _counts(inside) for name, inside in insides.items()}
        return cls(_by_process={**counts, **of_sites})

    def since(self, before: Readings) -> Readings:
        """What has been added."""
        added = [
            (now - was for now, was in zip(counts, before._by_process.get(name, (0, 0)), strict=True))
            for name, counts in self._by_process.items()
        ]
        replays, fills = (sum(column) for column in zip(*added, strict=True)) if added else (0, 0)
        return Readings(replays, fills)

    def __add__(self, other: Readings) -> Readings:
        return Readings(self.replays + other.replays, self.fills + other.fills)


def _counts(stats: dict[str, Any]) -> _Counts:
    return stats["replays"], stats["fills"]
