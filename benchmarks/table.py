"""The tables: what is read on the terminal and in docs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from .contender import CONTENDERS
from .measurement import Measurement, middle, select
from .scenario import BURST, COMEBACK, FAIRNESS, FULL_RATE, ORDINARY, STEADY, THREAD_PATH, TOPICS, WRITERS
from .verdict import Verdict

__all__ = ["table"]

# Heading, the figure's name, how it is written.
_Column = tuple[str, str, str]

_CONTENDER_WIDTH = 13
_STREAM_COLUMNS: tuple[_Column, ...] = (
    ("delivered", "delivered", ",.0f"),
    ("missing", "missing", ",.0f"),
    ("refresh", "refreshes", ",.0f"),
    ("p50 ms", "p50", ",.2f"),
    ("p99 ms", "p99", ",.2f"),
    ("max ms", "max", ",.2f"),
    ("deliv/s", "rate", ",.0f"),
    ("CPU s", "cpu", ",.2f"),
    ("KiB/strm", "memory", ",.1f"),
    ("RSS MiB", "rss", ",.0f"),
    ("connect s", "connect", ",.2f"),
    ("refused", "refused", ",.0f"),
)
_BURST_COLUMNS: tuple[_Column, ...] = (
    ("delivered", "delivered", ",.0f"),
    ("missing", "missing", ",.0f"),
    ("refresh", "refreshes", ",.0f"),
    ("deliv/s", "rate", ",.0f"),
    ("took s", "seconds", ",.3f"),
    ("p50 ms", "p50", ",.1f"),
    ("p99 ms", "p99", ",.1f"),
    ("max ms", "max", ",.1f"),
    ("CPU s", "cpu", ",.2f"),
    ("client CPU", "client_cpu", ",.2f"),
)
_FULL_RATE_COLUMNS: tuple[_Column, ...] = (
    ("delivered", "delivered", ",.0f"),
    ("missing", "missing", ",.0f"),
    ("events/s", "rate", ",.0f"),
    ("CPU s", "cpu", ",.2f"),
)
_ORDINARY_COLUMNS: tuple[_Column, ...] = (
    ("answered", "answered", ",.0f"),
    ("failed", "failed", ",.0f"),
    ("p50 ms", "p50", ",.2f"),
    ("p99 ms", "p99", ",.2f"),
    ("max ms", "max", ",.2f"),
    ("streams' p99", "streams_p99", ",.1f"),
)

_WRITER_COLUMNS: tuple[_Column, ...] = (
    ("trans./s", "rate", ",.0f"),
    ("p50 ms", "p50", ",.3f"),
    ("p99 ms", "p99", ",.2f"),
    ("mean ms", "mean", ",.3f"),
    ("COMMIT ms", "commit", ",.3f"),
    ("advisory ms", "advisory", ",.3f"),
    ("NOTIFY's ms", "object", ",.3f"),
    ("flush ms", "WalSync", ",.3f"),
)


_TOPIC_COLUMNS: tuple[_Column, ...] = (
    ("delivered", "delivered", ",.0f"),
    ("refresh", "refreshes", ",.0f"),
    ("p50 ms", "p50", ",.2f"),
    ("p99 ms", "p99", ",.2f"),
    ("max ms", "max", ",.2f"),
    ("KiB/strm", "memory", ",.1f"),
)


_COMEBACK_COLUMNS: tuple[_Column, ...] = (
    ("all live s", "back", ",.2f"),
    ("refreshes", "refreshes", ",.0f"),
    ("disorder", "disorder", ",.0f"),
    ("others' p99 before", "before_p99", ",.1f"),
    ("meanwhile p50 ms", "p50", ",.1f"),
    ("p99 ms", "p99", ",.1f"),
    ("max ms", "max", ",.1f"),
    ("sessions", "sessions", ",.0f"),
)


def table(
    machine: Mapping[str, str],
    measurements: Sequence[Measurement],
    skipped: Mapping[str, str],
    verdicts: Sequence[Verdict],
    note: str = "",
) -> str:
    """Everything, as text. Each row has the medians of its rounds."""
    sections = [
        _pairs("Machine", machine),
        _pairs("Contenders", {name: each.what for name, each in CONTENDERS.items() if name not in skipped}),
        *(_pairs("Skipped", skipped) for _ in [0] if skipped),
        *_tables(measurements),
        *_problems(measurements),
        _verdicts(verdicts),
        *([note] if note else []),
    ]
    return "\n\n".join(sections)


def _pairs(title: str, pairs: Mapping[str, str]) -> str:
    width = max(map(len, pairs), default=0) + 2
    return "\n".join([title, *(f"  {name:{width}}{value}" for name, value in pairs.items())])


def _tables(measurements: Sequence[Measurement]) -> Iterator[str]:
    kinds = (
        (STEADY, "Steady: each event goes to all streams", _STREAM_COLUMNS),
        (BURST, "Bursts: transactions one right after the other", _BURST_COLUMNS),
        (FULL_RATE, "One stream at full rate", _FULL_RATE_COLUMNS),
        (ORDINARY, "Ordinary requests while the streams receive events", _ORDINARY_COLUMNS),
        (THREAD_PATH, "Thread path: 40 events/s", _STREAM_COLUMNS),
        (WRITERS, "Writers: a transaction updates a row and publishes", _WRITER_COLUMNS),
        (COMEBACK, "Browsers that come back at once, beside 100 that are there", _COMEBACK_COLUMNS),
        (FAIRNESS, "A quiet topic, 20 events/s, alone and beside a busy one, 4 events/s", _TOPIC_COLUMNS),
        (TOPICS, "A topic for each stream: 100 events/s to random ones", _TOPIC_COLUMNS),
    )
    for scenario, title, columns in kinds:
        groups = _groups(select(measurements, scenario))
        if groups:
            yield "\n".join([title, *_rows(groups, columns)])


def _groups(measurements: Sequence[Measurement]) -> dict[tuple[int, int, str], list[Measurement]]:
    """The rounds of each row."""
    groups: dict[tuple[int, int, str], list[Measurement]] = {}
    for each in measurements:
        groups.setdefault((each.streams, each.transaction, each.contender), []).append(each)
    return groups


def _rows(groups: Mapping[tuple[int, int, str], Sequence[Measurement]], columns: Sequence[_Column]) -> Iterator[str]:
    with_transactions = any(transaction > 1 for _, transaction, _ in groups)
    unit = next(iter(groups.values()))[0].unit
    lines = [
        [unit, *(["a trans."] if with_transactions else []), "contender", "rounds", *(each[0] for each in columns)]
    ]
    for (streams, transaction, contender), rounds in groups.items():
        figures = middle(rounds)
        first = [f"{streams:,}", *([f"{transaction:,}"] if with_transactions else []), contender, str(len(rounds))]
        lines.append([*first, *(_figure(figures, name, form) for _, name, form in columns)])
    yield from aligned(lines, left=2 if with_transactions else 1)


def aligned(lines: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Columns of equal width, to the right but for the one with the index `left`."""
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    place: Callable[[int, str], str] = lambda index, cell: (  # noqa: E731
        cell.ljust(widths[index]) if index == left else cell.rjust(widths[index])
    )
    for line in lines:
        yield "  " + "  ".join(place(index, cell) for index, cell in enumerate(line))


def _figure(figures: Mapping[str, float], name: str, form: str) -> str:
    return format(figures[name], form) if name in figures else "-"


def _problems(measurements: Sequence[Measurement]) -> Iterator[str]:
    lines = [
        f"  {each.scenario}, {each.streams:,} {each.unit}, {each.contender}: {each.problem.splitlines()[0]}"
        for each in measurements
        if each.problem
    ]
    if lines:
        yield "\n".join(["Problems", *lines])


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    lines = [["what it must reach", "", "measured", ""]]
    lines += [[each.what, each.reach, each.measured, each.word] for each in verdicts]
    widths = [max(len(line[index]) for line in lines) for index in range(4)]
    rows = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join(["Verdict", *rows])
