"""The verdict: what pgfanout has to reach, what was measured, and whether that is met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from .measurement import Measurement, middle, paired, select
from .scenario import (
    ASYNCIO_STREAMS,
    BARE,
    BURST,
    COMEBACK,
    FAIRNESS,
    FULL_RATE,
    HISTORY,
    MANY_WRITERS,
    NEWCOMERS,
    NOTIFY,
    ORDINARY,
    STEADY,
    THREAD_PATH,
    TOPICS,
    WRITERS,
)

__all__ = ["Verdict", "judge"]

_LARGEST = 9000
_FLOOR_LATENCY, _FLOOR_CPU = 1.25, 1.5
_MEMORY = 4.0
_BURST_RATE, _BURST_TIMES = 3_000_000, 10
_BARE_SHARE = 0.3
_ASYNCIO_LATENCY, _ASYNCIO_CPU = 1 / 10, 1 / 4
_ORDINARY_P99 = 100.0
_CONNECT = 6.0
_THREAD_STREAMS, _THREAD_P99 = 500, 150.0
_HISTORY_LATENCY, _HISTORY_RATE = 1.5, 0.7
_QUIET_P99 = 15.0
_TOPICS_P99, _TOPICS_MEMORY = 10.0, 2.0
_CROWD, _BACK, _MEANWHILE, _SESSIONS = 1000, 5.0, 2.0, 2


@dataclass(frozen=True)
class Verdict:
    """`met` is None when it was not measured in this run."""

    what: str
    reach: str
    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        return "not measured" if self.met is None else "met" if self.met else "missed"


def judge(measurements: Sequence[Measurement]) -> list[Verdict]:
    """Every row; figures are the medians of the rounds, ratios those of the medians, and counts of losses sums.

    Of writers the ratio is the median of each round's.
    """
    return [verdict for judgement in _JUDGEMENTS for verdict in judgement(measurements)]


def _missing(what: str, reach: str) -> Verdict:
    return Verdict(what, reach, "-", None)


def _against_floor(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    ours = middle(select(measurements, STEADY, "detached", _LARGEST))
    floor = middle(select(measurements, STEADY, "floor", _LARGEST))
    for name in ("p50", "p99", "max"):
        what, reach = f"{_LARGEST:,} streams, one event to all: {name}", f"at most {_FLOOR_LATENCY} x floor"
        yield _ratio(what, reach, ours, floor, name, "ms", _FLOOR_LATENCY)
    what, reach = f"{_LARGEST:,} streams, one event to all: CPU", f"at most {_FLOOR_CPU} x floor"
    yield _ratio(what, reach, ours, floor, "cpu", "s", _FLOOR_CPU)


def _against_asyncio(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    ours = middle(select(measurements, STEADY, "detached", ASYNCIO_STREAMS))
    other = middle(select(measurements, STEADY, "asyncio", ASYNCIO_STREAMS))
    prefix = f"{ASYNCIO_STREAMS:,} streams against asyncio: "
    yield _ratio(f"{prefix}p99", "at most 1/10", ours, other, "p99", "ms", _ASYNCIO_LATENCY)
    yield _ratio(f"{prefix}CPU", "at most 1/4", ours, other, "cpu", "s", _ASYNCIO_CPU)


def _ratio(
    what: str, reach: str, ours: dict[str, float], other: dict[str, float], name: str, unit: str, limit: float
) -> Verdict:
    if not ours or not other.get(name):
        return _missing(what, reach)
    ratio = ours[name] / other[name]
    measured = f"{ratio:.2f} ({ours[name]:,.2f} : {other[name]:,.2f} {unit})"
    return Verdict(what, reach, measured, ratio <= limit)


def _memory(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what, reach = "memory for each idle detached stream", f"at most {_MEMORY:g} KiB"
    ours = middle(select(measurements, STEADY, "detached", _LARGEST))
    yield (
        Verdict(what, reach, f"{ours['memory']:.2f} KiB", ours["memory"] <= _MEMORY) if ours else _missing(what, reach)
    )


def _burst(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what = "1,000 streams, 500 events in transactions of 50"
    rounds = select(measurements, BURST, "detached", 1000, 50)
    other = middle(select(measurements, BURST, "asyncio", 1000, 50))
    least = max(_BURST_RATE, _BURST_TIMES * other.get("rate", 0.0))
    reach = f"at least {least:,.0f} deliveries/s, nothing lost"
    if not rounds:
        yield _missing(what, reach)
        return
    rate, lost = middle(rounds)["rate"], sum(each.figures["missing"] for each in rounds)
    measured = f"{rate:,.0f} deliveries/s, {lost:,.0f} lost"
    measured += f"; asyncio {other['rate']:,.0f}" if other else "; asyncio not measured"
    yield Verdict(what, reach, measured, rate >= least and not lost)


def _full_rate(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what, reach = "one stream at full rate", f"at least {_BARE_SHARE} x bare notifies"
    ours, bare = (middle(select(measurements, FULL_RATE, name)) for name in ("detached", BARE))
    if not ours or not bare:
        yield _missing(what, reach)
        return
    share = ours["rate"] / bare["rate"]
    measured = f"{share:.2f} ({ours['rate']:,.0f} : {bare['rate']:,.0f} events/s)"
    yield Verdict(what, reach, measured, share >= _BARE_SHARE and not ours["missing"])


def _ordinary(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what, reach = f"ordinary requests beside {_LARGEST:,} streams: p99", f"under {_ORDINARY_P99:g} ms"
    rounds = select(measurements, ORDINARY, "detached", _LARGEST)
    ours, failed = middle(rounds), sum(each.figures["failed"] for each in rounds)
    if not ours:
        yield _missing(what, reach)
        return
    measured = f"{ours['p99']:.1f} ms, {failed:,.0f} failed"
    yield Verdict(what, reach, measured, ours["p99"] < _ORDINARY_P99 and not failed)


def _connecting(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what, reach = f"connecting {_LARGEST:,} streams", f"under {_CONNECT:g} s, none refused"
    rounds = select(measurements, STEADY, "detached", _LARGEST)
    ours, refused = middle(rounds), sum(each.figures["refused"] for each in rounds)
    if not ours:
        yield _missing(what, reach)
        return
    measured = f"{ours['connect']:.2f} s, {refused:,.0f} refused"
    yield Verdict(what, reach, measured, ours["connect"] < _CONNECT and not refused)


def _thread_path(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what = f"thread path, {_THREAD_STREAMS} streams, 40 events/s"
    reach = f"nothing lost, p99 under {_THREAD_P99:g} ms"
    rounds = select(measurements, THREAD_PATH, "threads", _THREAD_STREAMS)
    if not rounds:
        yield _missing(what, reach)
        return
    p99, lost = middle(rounds)["p99"], sum(each.figures["missing"] for each in rounds)
    yield Verdict(what, reach, f"{lost:,.0f} lost, p99 {p99:.1f} ms", p99 < _THREAD_P99 and not lost)


def _writers(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what, reach = "a transaction that updates a row and publishes: p50", f"at most {_HISTORY_LATENCY} x notify"
    yield _paired(measurements, 1, "p50", "ms", what, reach, lambda ratio: ratio <= _HISTORY_LATENCY)
    what, reach = f"{MANY_WRITERS} writers that publish with history", f"at least {_HISTORY_RATE} x notify"
    yield _paired(measurements, MANY_WRITERS, "rate", "trans./s", what, reach, lambda ratio: ratio >= _HISTORY_RATE)


def _comeback(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    rounds = select(measurements, COMEBACK, HISTORY, _CROWD)
    ours, crowd = middle(rounds), middle(select(measurements, COMEBACK, NEWCOMERS, _CROWD))
    what, reach = f"{_CROWD:,} browsers back, each 500 events behind", f"all live within {_BACK:g} s, no refresh"
    quiet = f"at most {_MEANWHILE:g} x before, {_SESSIONS} sessions"
    if not ours:
        yield _missing(what, reach)
        yield _missing("others' p99 meanwhile", quiet)
        return
    told = sum(each.figures["refreshes"] + each.figures["disorder"] for each in rounds)
    yield Verdict(what, reach, f"{ours['back']:.2f} s, {told:,.0f} refreshed or out of order", _is_back(ours, told))
    measured = f"{ours['p99']:.1f} ms ({ours['before_p99']:.1f} before), {ours['sessions']:.0f} sessions"
    measured += f"; beside as many newcomers {crowd['p99']:.1f} ms" if crowd else ""
    is_quiet = ours["p99"] <= _MEANWHILE * ours["before_p99"] and ours["sessions"] <= _SESSIONS
    yield Verdict("others' p99 meanwhile", quiet, measured, is_quiet)


def _fairness(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what, reach = f"p99 of a quiet topic beside {_LARGEST:,} streams of a busy one", f"at most {_QUIET_P99:g} ms"
    beside, alone = (middle(select(measurements, FAIRNESS, name)) for name in ("beside", "alone"))
    if not (beside and alone):
        yield _missing(what, reach)
        return
    measured = f"{beside['p99']:.1f} ms ({alone['p99']:.1f} alone)"
    yield Verdict(what, reach, measured, beside["p99"] <= _QUIET_P99)


def _topics(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    what = f"{_LARGEST:,} topics with a stream each, 100 events/s"
    reach = f"p99 at most {_TOPICS_P99:g} ms, {_TOPICS_MEMORY:g} KiB a stream"
    ours = middle(select(measurements, TOPICS, streams=_LARGEST))
    if not ours:
        yield _missing(what, reach)
        return
    met = ours["p99"] <= _TOPICS_P99 and ours["memory"] <= _TOPICS_MEMORY
    yield Verdict(what, reach, f"{ours['p99']:.1f} ms, {ours['memory']:.1f} KiB", met)


def _is_back(ours: dict[str, float], told: float) -> bool:
    return ours["back"] < _BACK and not told


def _paired(
    measurements: Sequence[Measurement],
    writers: int,
    name: str,
    unit: str,
    what: str,
    reach: str,
    is_enough: Callable[[float], bool],
) -> Verdict:
    ours, other = (select(measurements, WRITERS, way, writers) for way in (HISTORY, NOTIFY))
    ratios = paired(ours, other, name)
    if not ratios:
        return _missing(what, reach)
    ratio = median(ratios)
    measured = f"{ratio:.2f}, rounds {min(ratios):.2f} to {max(ratios):.2f}"
    measured += f" ({middle(ours)[name]:,.2f} : {middle(other)[name]:,.2f} {unit})"
    return Verdict(what, reach, measured, is_enough(ratio))


_JUDGEMENTS: tuple[Callable[[Sequence[Measurement]], Iterator[Verdict]], ...] = (
    _against_floor,
    _memory,
    _burst,
    _full_rate,
    _against_asyncio,
    _ordinary,
    _connecting,
    _thread_path,
    _writers,
    _comeback,
    _fairness,
    _topics,
)
