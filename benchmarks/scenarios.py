"""All scenarios, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .burst import burst
from .comeback import comeback
from .contender import CONTENDERS
from .fairness import fairness, many_topics
from .full_rate import full_rate
from .measurement import Measurement
from .options import Options
from .steady import steady, thread_path
from .world import World
from .writers import writers

__all__ = ["measure"]


def measure(world: World, options: Options, contenders: Iterable[str], tell: Callable[[Measurement], None]) -> None:
    """Run every scenario that is wanted with every contender that is given; `tell` gets each measurement."""
    chosen = [CONTENDERS[name] for name in contenders]
    for scenario in (steady, burst, full_rate, thread_path):
        for measurement in scenario(world, options, chosen):
            tell(measurement)
    for alone in (writers, comeback, fairness, many_topics):
        for measurement in alone(world, options):
            tell(measurement)
