"""The load client's other end: starts the C program and speaks with it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.processes import session

__all__ = ["LoadClient", "Opening", "Window"]


@dataclass(frozen=True)
class Opening:
    """How the streams were opened.

    `seconds` is the time from the first connect to the last stream's first bytes; `refused` how many got no stream,
    and `reasons` how many of them for each reason.
    """

    streams: int
    seconds: float
    refused: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Window:
    """What all streams received between two commands: counts, latencies in ms, times in ns of CLOCK_MONOTONIC.

    `missing` counts the holes in each stream's numbers, told by a refresh or not; `duplicates` what came again or out
    of order. `cpu` is the client's own, in seconds. `complete` says that each stream got the last event.
    """

    streams: int
    complete: bool
    delivered: int
    missing: int
    duplicates: int
    refreshes: int
    closed: int
    first_publish: int
    first_receipt: int
    last_receipt: int
    p50: float
    p99: float
    max: float
    cpu: float


class LoadClient:
    """A running load client; `with` starts and ends it. Its methods wait for its answer."""

    def __init__(self, program: Path, port: int) -> None:
        self._command = [str(program), str(port), "/events"]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> LoadClient:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        session.watch(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running()
        process.kill()  # its sockets are reset, whatever it is doing
        process.communicate()
        session.forget(process.pid)

    def start_opening(self, streams: int) -> None:
        """Begin to open streams; `wait_until_open` has to follow."""
        self._tell(f"open {streams}")

    def wait_until_open(self) -> Opening:
        answer = self._hear()
        reasons = {name: count for name, count in answer.items() if name not in ("open", "seconds") and count}
        return Opening(answer["open"], answer["seconds"], sum(reasons.values()), reasons)

    def start_window(self, last: int) -> None:
        """Forget what was counted, and expect the events 1 to `last` on each stream."""
        self._tell(f"window {last}")
        self._hear()

    def end_window(self, timeout: float) -> Window:
        """Wait until each stream has the last event, or for `timeout` seconds, or until nothing comes for 3 s."""
        self._tell(f"report {timeout}")
        answer = self._hear()
        return Window(
            streams=answer["streams"],
            complete=answer["arrived"] >= answer["streams"] > 0,
            delivered=answer["delivered"],
            missing=answer["missing"],
            duplicates=answer["duplicates"],
            refreshes=answer["refreshes"],
            closed=answer["closed"],
            first_publish=answer["first_publish"],
            first_receipt=answer["first_receipt"],
            last_receipt=answer["last_receipt"],
            p50=answer["p50"] / 1000,
            p99=answer["p99"] / 1000,
            max=answer["max"] / 1000,
            cpu=answer["cpu"],
        )

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the load client was never started"
        return self._process

    def _tell(self, command: str) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        try:
            print(command, file=stdin, flush=True)
        except BrokenPipeError:
            raise RuntimeError("the load client has ended") from None

    def _hear(self) -> dict[str, Any]:
        stdout = self._running().stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError("the load client has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
