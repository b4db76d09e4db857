"""The results of a run as files: results.json, results.txt and results.svg."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .measurement import Measurement
from .options import Options
from .plot import plot
from .verdict import Verdict

__all__ = ["write"]


def write(
    options: Options,
    machine: Mapping[str, str],
    measurements: Sequence[Measurement],
    skipped: Mapping[str, str],
    verdicts: Sequence[Verdict],
    text: str,
) -> list[Path]:
    """Write them to the directory that the options name; returns their paths."""
    options.out.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "machine": dict(machine),
        "options": {**asdict(options), "scenarios": sorted(options.scenarios), "out": None},
        "skipped": dict(skipped),
        "measurements": [asdict(each) for each in measurements],
        "verdicts": [{**asdict(each), "verdict": each.word} for each in verdicts],
    }
    files = {
        "results.json": json.dumps(content, indent=1) + "\n",
        "results.txt": text + "\n",
        "results.svg": plot(measurements, options.rate, options.seconds),
    }
    for name, contents in files.items():
        (options.out / name).write_text(contents, encoding="utf-8")
    return [options.out / name for name in files]
