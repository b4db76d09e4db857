"""Helpers: programs of ours that run beside a server and print what they have measured."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from tests.support.processes import REPOSITORY, session

__all__ = ["helper", "output"]


@contextlib.contextmanager
def helper(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A running program, with `env` as its environment or ours; it ends with the block."""
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        session.watch(process.pid)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            session.forget(process.pid)


def output(process: subprocess.Popen[str], timeout: float) -> str:
    """What it has printed, once it has ended by itself."""
    try:
        text = process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{process.args!r} has not ended within {timeout:g} s") from None
    if process.returncode != 0:
        raise RuntimeError(f"{process.args!r} has failed")
    return text
