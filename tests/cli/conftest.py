"""Running commands, and what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import pgfanout
from pgfanout.cli import main

Capture: TypeAlias = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGFANOUT_URL", "PGFANOUT_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "pgfanout", *arguments],
        cwd=Path(pgfanout.__file__).parents[1],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def printed(capture: Capture, *arguments: str, **options: Any) -> str:
    """What a command that succeeds prints."""
    assert main(arguments, **options) == 0
    shown = capture.readouterr()
    assert shown.err == ""
    return shown.out


def refused(capture: Capture, *arguments: str) -> str:
    """The one line of a command that makes no sense."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return one_line(capture)


def failed(capture: Capture, *arguments: str) -> str:
    """The one line of a command that the server refuses."""
    assert main(arguments) == 1
    return one_line(capture)


def one_line(capture: Capture) -> str:
    shown = capture.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("pgfanout") and shown.err.endswith("\n") and shown.err.count("\n") == 1
    return shown.err
