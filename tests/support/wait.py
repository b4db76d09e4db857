"""Waiting for a condition: short polls, a generous limit, and a failure that says what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], timeout: float = 20.0, interval: float = 0.01) -> T:
    """Call `check` until it returns something true, and return that.

    An exception counts as "not yet". After `timeout` seconds an AssertionError tells the last value or exception.
    """
    deadline = time.monotonic() + timeout
    while True:
        cause: Exception | None = None
        try:
            value = check()
        except Exception as error:  # whatever fails now may work at the next poll
            cause, seen = error, f"raised {error!r}"
        else:
            if value:
                return value
            seen = f"returned {value!r}"
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout} s: the last call {seen}") from cause
        time.sleep(interval)
