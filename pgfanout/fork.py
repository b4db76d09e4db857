"""Resetting objects in a forked child: the parent's threads don't exist there, and its locks may stay held for ever."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["renew_in_children"]


def renew_in_children(renew: Callable[[], object]) -> None:
    """Register a bound method that is called in each child forked from now on, as long as its object lives.

    The hook can't be removed. It holds only a weak reference.
    """
    reference = weakref.WeakMethod(renew)

    def after_in_child() -> None:
        method = reference()
        if method is not None:
            method()

    os.register_at_fork(after_in_child=after_in_child)
