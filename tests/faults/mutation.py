"""Mutation: a change to the library by which a promise is broken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """`promise` is its number in docs/reliability.md. `old`, found once in the module, becomes `new`. `faults` are
    those that bring it to light, all of them when there is none. With `history`, the harness runs with it."""

    promise: int
    what: str
    module: str
    old: str
    new: str
    faults: tuple[str, ...] = ()
    history: bool = False

    def apply(self, package: Path) -> None:
        path = package / self.module
        source = path.read_text(encoding="utf-8")
        assert source.count(self.old) == 1, f"{self.module} has {source.count(self.old)} times {self.old!r}"
        path.write_text(source.replace(self.old, self.new), encoding="utf-8")
