"""What a busy topic costs a quiet one, and what thousands of topics cost: the scenarios J and K."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pgfanout import PostgresHub
from tests.support.processes import REPOSITORY, session

from .contender import CONTENDERS
from .measurement import Measurement, figures_of
from .options import Options
from .percentile import percentile
from .publisher import Publisher
from .scenario import FAIRNESS, PATIENCE, QUIET, TOPICS, Trouble, connect
from .sender import PostgresSender
from .world import Run, World

__all__ = ["fairness", "many_topics"]

_QUIET_STREAMS, _QUIET_RATE = 10, 20.0
_TOPICS_RATE = 100.0


@dataclass
class Readers:
    """A running `benchmarks.topics`."""

    process: subprocess.Popen[str]

    def figures(self) -> dict[str, float]:
        """What they have received until now; they end."""
        answer = json.loads(self.process.communicate(timeout=PATIENCE)[0].splitlines()[-1])
        times = answer["milliseconds"]
        names = {"p50": 50, "p99": 99, "max": 100}
        shares = {name: percentile(times, share) for name, share in names.items()}
        return {"delivered": len(times), "refreshes": answer["refreshes"], **shares}


@contextlib.contextmanager
def _readers(port: int, channel: str, count: int) -> Iterator[Readers]:
    command = [sys.executable, "-m", "benchmarks.topics", str(port), channel, str(count)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        session.watch(process.pid)
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "open\n":
                raise RuntimeError("the streams could not be opened")
            yield Readers(process)
        finally:
            process.kill()
            process.wait()
            session.forget(process.pid)


def fairness(world: World, options: Options) -> Iterator[Measurement]:
    """Ten streams of a topic alone, and beside a topic that thousands follow."""
    if options.wants("J"):
        for round_ in range(1, options.rounds + 1):
            yield from _fairness_round(world, options, options.sizes[-1], round_)


def _fairness_round(world: World, options: Options, streams: int, round_: int) -> Iterator[Measurement]:
    alone, beside = (Measurement(FAIRNESS, name, _QUIET_STREAMS, round_) for name in ("alone", "beside"))
    busy = Measurement(FAIRNESS, "busy", streams, round_)
    count = round(options.rate * options.seconds)
    try:
        with world.run(CONTENDERS["detached"], streams + _QUIET_STREAMS) as run:
            run.streams = streams
            opened = connect(run)
            with _quiet(world, run, options.seconds) as alone.figures:
                time.sleep(options.seconds)
            with _quiet(world, run, options.seconds) as beside.figures:
                window, cpu = run.window(lambda: run.publisher.steady(options.rate, count), count, PATIENCE)
            busy.figures = opened | figures_of(window, rate=window.delivered / options.seconds, cpu=cpu)
            busy.problem = run.problem
    except Trouble as error:
        busy.problem = str(error)
    yield from (alone, beside, busy)


@contextlib.contextmanager
def _quiet(world: World, run: Run, seconds: float) -> Iterator[dict[str, float]]:
    """Streams of another topic, which has events while the block runs; their figures are there at its end."""
    figures: dict[str, float] = {}
    with _readers(run.server.port, "quiet", _QUIET_STREAMS) as readers:
        time.sleep(QUIET)
        with PostgresHub(world.postgres.url()) as hub:
            publisher = Publisher(PostgresSender(hub, "quiet"))
            thread = threading.Thread(target=publisher.steady, args=(_QUIET_RATE, round(_QUIET_RATE * seconds)))
            thread.start()
            yield figures
            thread.join()
            time.sleep(QUIET)
        figures.update(readers.figures())


def many_topics(world: World, options: Options) -> Iterator[Measurement]:
    """A stream for each of thousands of topics, and events to random ones."""
    if not options.wants("K"):
        return
    for round_ in range(1, options.rounds + 1):
        streams = options.sizes[-1]
        measurement = Measurement(TOPICS, "detached", streams, round_)
        try:
            with world.run(CONTENDERS["detached"], streams) as run:
                before = run.server.worker_rss()
                with _readers(run.server.port, "topic-*", streams) as readers:
                    time.sleep(QUIET)
                    memory = (run.server.worker_rss() - before) / streams
                    _publish_to_random(world, streams, options.seconds)
                    time.sleep(QUIET)
                    measurement.figures = {**readers.figures(), "memory": memory}
        except Trouble as error:
            measurement.problem = str(error)
        yield measurement


def _publish_to_random(world: World, topics: int, seconds: float) -> None:
    draw = random.Random(1)
    with PostgresHub(world.postgres.url()) as hub:
        start = time.monotonic()
        for number in range(round(_TOPICS_RATE * seconds)):
            time.sleep(max(0.0, start + number / _TOPICS_RATE - time.monotonic()))
            Publisher(PostgresSender(hub, f"topic-{draw.randrange(topics)}")).one(1)
