"""How many descriptors (open files) streams may take, and leaving the others to the server."""

from __future__ import annotations

import os
import resource

from ..errors import TooManyOpenFilesError

__all__ = ["check_descriptors", "raise_limit", "set_reserve"]

_DEFAULT_RESERVE = 64
_reserve = _DEFAULT_RESERVE


def set_reserve(connections: int) -> None:
    """Tell how many connections the server may have besides the streams."""
    global _reserve
    _reserve = _DEFAULT_RESERVE + connections


def raise_limit() -> int:
    """Have as many open files as the system lets this process have; how many that is.

    The usual soft limit, 1024, is there for programs that call `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a container's rules, or a system that has no such number
        return soft
    return hard


def check_descriptors(any_of_them: int, in_use: int) -> None:
    """Raises `TooManyOpenFilesError` when the next descriptor would be one of the last.

    A server that can't accept a connection for want of one may end. Numbers are handed out from
    the lowest, so that of a copy of any descriptor says how many are taken. It is not looked at as
    long as streams have less than half of them `in_use`.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or in_use + _reserve < limit // 2:
        return
    try:
        next_one = os.dup(any_of_them)
    except OSError:
        raise TooManyOpenFilesError(limit) from None
    os.close(next_one)
    if next_one >= limit - min(_reserve, limit // 2):
        raise TooManyOpenFilesError(limit)
