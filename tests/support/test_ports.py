"""Two test runs at a time on one machine: neither gives a server a port that the other gives to one of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.support.ports import free_port
from tests.support.processes import REPOSITORY

_MANY = 300
_THEIRS = f"from tests.support.ports import free_port; print(*(free_port() for _ in range({_MANY})))"


def test_no_port_is_given_out_twice_by_one_process_or_by_two() -> None:
    other = subprocess.run(
        [sys.executable, "-c", _THEIRS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60.0,
    )
    ports = [*(free_port() for _ in range(_MANY)), *map(int, other.stdout.split())]
    assert len(set(ports)) == 2 * _MANY
