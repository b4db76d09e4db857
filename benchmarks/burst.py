"""Bursts: transactions of many events, committed one right after the other, scenario C."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .contender import Contender
from .measurement import Measurement, figures_of, opening_figures
from .options import Options
from .scenario import BURST, PATIENCE, QUIET, Trouble
from .world import Run, World

__all__ = ["burst"]

_CONTENDERS = ("detached", "floor", "threads", "asyncio")
_BUFFER = 1024
# Seconds after which once is enough.
_LONG = 10.0


def burst(world: World, options: Options, contenders: list[Contender]) -> Iterator[Measurement]:
    if not options.wants("C"):
        return
    for streams in dict.fromkeys(streams for streams, _, _ in options.bursts):
        for contender in contenders:
            if contender.name in _CONTENDERS and streams <= contender.most_streams:
                yield from _bursts_of(world, options, contender, streams)


def _bursts_of(world: World, options: Options, contender: Contender, streams: int) -> Iterator[Measurement]:
    """Every burst of this size, one after another, on the same streams."""
    try:
        with world.run(contender, streams, _BUFFER) as run:
            opened = opening_figures(run.connect())
            for _, events, size in (burst for burst in options.bursts if burst[0] == streams):
                for round_ in range(1, options.burst_rounds + 1):
                    time.sleep(QUIET / 2)
                    figures = opened | _window(run, events, size)
                    yield Measurement(BURST, contender.name, streams, round_, size, run.problem, figures)
                    if run.is_over or figures["seconds"] > _LONG:
                        return
    except Trouble as error:
        yield Measurement(BURST, contender.name, streams, problem=str(error))


def _window(run: Run, events: int, size: int) -> dict[str, float]:
    window, cpu = run.window(lambda: run.publisher.burst(events // size, size), events, PATIENCE)
    took = (window.last_receipt - window.first_publish) / 1e9
    return {**figures_of(window, rate=window.delivered / took if took else 0.0, cpu=cpu), "seconds": took}
