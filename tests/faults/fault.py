"""A fault: what it is, and the register that schedules draw from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .world import World

__all__ = ["FAULTS", "Fault", "fault", "hold"]

Run = Callable[[World, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """`where` is its track: faults of one track happen one after the other, those of two tracks at the same time.

    With `unfillable`, events are lost that no history has, or may have been: it is told as a gap with history, too.
    """

    name: str
    where: str
    run: Run
    unfillable: bool = False


FAULTS: dict[str, Fault] = {}


def fault(where: str, *, unfillable: bool = False) -> Callable[[Run], Run]:
    """Register a function that does its harm, waits for a drawn while, and undoes what it can."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, where, run, unfillable)
        return run

    return register


def hold(rng: random.Random, longest: float) -> None:
    """Leave a fault as it is for a while."""
    time.sleep(rng.uniform(0.0, longest))
