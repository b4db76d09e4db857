"""The plot: p99 and CPU against the number of streams, as an SVG that needs nothing but itself.

Its background is clear and its colours are of middle brightness, so that it can be read on white and on black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from .contender import CONTENDERS
from .measurement import Measurement, middle, select
from .scenario import STEADY

__all__ = ["plot"]

_COLOURS = {
    "detached": "#2f81f7",
    "threads": "#e0701a",
    "asyncio": "#2da44e",
    "tutorial": "#a371f7",
    "flask-sse": "#e5534b",
    "floor": "#808891",
}
_INK = "#808891"
_WIDTH, _HEIGHT = 960, 430
_PANEL_WIDTH, _PANEL_HEIGHT = 380, 270
_TOP = 100
_AXIS = "streams (all axes are logarithmic)"
_FONT = "font-family='system-ui, sans-serif'"

# For each contender: number of streams, value.
_Lines = Mapping[str, Sequence[tuple[int, float]]]


def plot(measurements: Sequence[Measurement], rate: float, seconds: float) -> str:
    """The SVG's text."""
    p99, cpu = _lines(measurements, "p99"), _lines(measurements, "cpu")
    sizes = sorted({streams for line in p99.values() for streams, _ in line})
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' {_FONT} font-size='13'>",
        "<title>p99 latency and CPU time against the number of streams</title>",
        *_legend(p99),
        *_panel(70, f"p99 from publish to receipt, ms ({rate:g} events/s)", p99, sizes, 0.1),
        *_panel(550, f"CPU of the server, seconds in {seconds:g} s", cpu, sizes, 0.001),
        f"<text x='{_WIDTH / 2}' y='{_HEIGHT - 12}' fill='{_INK}' text-anchor='middle'>{_AXIS}</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lines(measurements: Sequence[Measurement], name: str) -> _Lines:
    lines: dict[str, list[tuple[int, float]]] = {}
    for contender in CONTENDERS:
        rounds = select(measurements, STEADY, contender)
        for streams in sorted({each.streams for each in rounds}):
            value = middle([each for each in rounds if each.streams == streams]).get(name)
            if value is not None:
                lines.setdefault(contender, []).append((streams, value))
    return lines


def _legend(lines: _Lines) -> Iterator[str]:
    x = 70
    for name in lines:
        yield f"<circle cx='{x}' cy='26' r='5' fill='{_COLOURS[name]}'/>"
        yield f"<text x='{x + 11}' y='31' fill='{_COLOURS[name]}' font-size='15'>{escape(name)}</text>"
        x += 45 + 9 * len(name)


def _panel(left: int, title: str, lines: _Lines, sizes: Sequence[int], least: float) -> Iterator[str]:
    """One diagram, with both axes logarithmic."""
    values = [max(least, value) for line in lines.values() for _, value in line]
    if not values:
        return
    low, high = (
        math.floor(math.log10(min(values))),
        max(math.ceil(math.log10(max(values))), math.floor(math.log10(min(values))) + 1),
    )
    across = _scale(math.log10(sizes[0]), math.log10(sizes[-1]), left + 20, left + _PANEL_WIDTH - 20)
    up = _scale(low, high, _TOP + _PANEL_HEIGHT, _TOP)
    yield f"<text x='{left - 40}' y='{_TOP - 24}' fill='{_INK}' font-size='15'>{escape(title)}</text>"
    for power in range(low, high + 1):
        y = up(power)
        yield f"<path d='M{left} {y:.1f}h{_PANEL_WIDTH}' stroke='{_INK}' stroke-opacity='.35'/>"
        yield f"<text x='{left - 8}' y='{y + 4:.1f}' fill='{_INK}' text-anchor='end'>{10.0**power:,g}</text>"
    for size, x in _ticks(sizes, across):
        yield f"<text x='{x:.1f}' y='{_TOP + _PANEL_HEIGHT + 20}' fill='{_INK}' text-anchor='middle'>{size:,}</text>"
    for name, line in lines.items():
        yield from _line(_COLOURS[name], [(across(math.log10(s)), up(math.log10(max(least, v)))) for s, v in line])


def _line(colour: str, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2.2' stroke-linejoin='round'/>"
    for x, y in points:
        yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.6' fill='{colour}'/>"


def _ticks(sizes: Sequence[int], across: Callable[[float], float]) -> Iterator[tuple[int, float]]:
    """The sizes whose labels have room, the largest for certain."""
    taken = math.inf
    for size in reversed(sizes):
        x = across(math.log10(size))
        if taken - x > 36:
            yield size, x
            taken = x


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)
