"""A fault: what it is, and the register that schedules draw from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .world import World

__all__ = ["FAULTS", "Fault", "drawable", "fault", "hold"]

Run = Callable[[World, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """`where` is its track: faults of one track happen one after the other, those of two tracks at the same time.
    One that is about the `history` is drawn only where there is one."""

    name: str
    where: str
    run: Run
    history: bool = False


FAULTS: dict[str, Fault] = {}


def fault(where: str, *, history: bool = False) -> Callable[[Run], Run]:
    """Register a function that does its harm, waits for a drawn while, and undoes what it can. What may be told for it
    as a gap with history, it lets the world know before."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, where, run, history)
        return run

    return register


def drawable(history: bool) -> list[str]:
    """The names of the faults that there are with history, or without."""
    return sorted(name for name, each in FAULTS.items() if history or not each.history)


def hold(rng: random.Random, longest: float) -> None:
    """Leave a fault as it is for a while."""
    time.sleep(rng.uniform(0.0, longest))
