"""Limiting the descriptors (open files) that streams use, so that the server keeps some."""

from __future__ import annotations

import os
import resource

from ..errors import TooManyOpenFilesError

__all__ = ["check_descriptors", "raise_limit", "set_reserve"]

_DEFAULT_RESERVE = 64
_reserve = _DEFAULT_RESERVE


def set_reserve(connections: int) -> None:
    """Set how many connections the server may have besides the streams."""
    global _reserve
    _reserve = _DEFAULT_RESERVE + connections


def raise_limit() -> int:
    """Raise the process's limit of open files as far as the system allows. Return the limit.

    The usual soft limit, 1024, exists for programs that call `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a container's rules, or a system that has no such number
        return soft
    return hard


def check_descriptors(any_of_them: int, in_use: int) -> None:
    """Raise `TooManyOpenFilesError` if the next descriptor would be one of the server's reserve.

    A server that has no descriptor for a new connection may exit. The system assigns the lowest free number, so the
    number of a duplicate tells how many descriptors are in use. `any_of_them` is duplicated for that. The check is
    skipped while the streams' descriptors `in_use` and the reserve are less than half of the limit.
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
