"""Streams at a steady rate: every size of the scenarios A, B, E and G, and the thread path, F."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from .contender import Contender
from .helper import helper, output
from .measurement import Measurement, figures_of
from .options import Options
from .scenario import ASYNCIO_STREAMS, ORDINARY, PATIENCE, STEADY, THREAD_PATH, Trouble, connect
from .world import Run, World

__all__ = ["steady", "thread_path"]

_ORDINARY_CLIENTS = 2


def steady(world: World, options: Options, contenders: list[Contender]) -> Iterator[Measurement]:
    for streams in options.sizes:
        for round_ in range(1, options.rounds + 1):
            for contender in contenders:
                if _takes_part(contender.name, streams, round_, options) and streams <= contender.most_streams:
                    yield from _steady_round(world, options, contender, streams, round_)


def _takes_part(name: str, streams: int, round_: int, options: Options) -> bool:
    """What is compared by a ratio takes turns in every round; for the others one will do."""
    if not options.wants("A", "B", "G"):
        return _has_requests(name, streams, options)
    if round_ == 1:
        return True
    pairs = {ASYNCIO_STREAMS: ("detached", "asyncio"), options.sizes[-1]: ("detached", "floor")}
    return name in pairs.get(streams, ())


def _has_requests(name: str, streams: int, options: Options) -> bool:
    return options.wants("E") and name == "detached" and streams == options.sizes[-1]


def _steady_round(
    world: World, options: Options, contender: Contender, streams: int, round_: int
) -> Iterator[Measurement]:
    served = Measurement(STEADY, contender.name, streams, round_)
    ordinary = Measurement(ORDINARY, contender.name, streams, round_)
    try:
        with world.run(contender, streams) as run:
            _fill(served, run, options.rate, options.seconds)
            if _has_requests(contender.name, streams, options) and not run.is_over:
                ordinary.figures = _requests(run, options.rate, options.seconds)
                ordinary.problem = run.problem
    except Trouble as error:
        (ordinary if served.figures else served).problem = str(error)
    yield served
    if ordinary.figures or ordinary.problem:
        yield ordinary


def thread_path(world: World, options: Options, contenders: list[Contender]) -> Iterator[Measurement]:
    for contender in contenders:
        if options.wants("F") and contender.name == "threads":
            served = Measurement(THREAD_PATH, contender.name, options.thread_streams)
            try:
                with world.run(contender, options.thread_streams) as run:
                    _fill(served, run, options.thread_rate, options.seconds)
            except Trouble as error:
                served.problem = str(error)
            yield served


def _fill(measurement: Measurement, run: Run, rate: float, seconds: float) -> None:
    """Connect and measure one window. Either all figures are there or none."""
    opened = connect(run)
    measurement.figures = opened | _window(run, rate, seconds)
    measurement.problem = run.problem


def _window(run: Run, rate: float, seconds: float) -> dict[str, float]:
    count = round(rate * seconds)
    window, cpu = run.window(lambda: run.publisher.steady(rate, count), count, PATIENCE)
    took = max(seconds, (window.last_receipt - window.first_publish) / 1e9)
    return figures_of(window, rate=window.delivered / took, cpu=cpu)


def _requests(run: Run, rate: float, seconds: float) -> dict[str, float]:
    """Ordinary requests while the streams go on receiving."""
    command = [sys.executable, "-m", "benchmarks.ordinary", str(run.server.port), str(seconds), str(_ORDINARY_CLIENTS)]
    with helper(command) as asking:
        beside = _window(run, rate, seconds)
        answer = json.loads(output(asking, PATIENCE))
    figures: dict[str, float] = {name: float(value) for name, value in answer.items()}
    return {**figures, "streams_p99": beside["p99"], "missing": beside["missing"]}
