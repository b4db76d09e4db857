"""What is made anew in a forked child, where the parent's threads don't exist and its locks may be held for ever."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["renew_in_children"]


def renew_in_children(renew: Callable[[], object]) -> None:
    """Have a bound method called in each child that is forked from now on, as long as its object lives.

    The hook can't be taken back; it holds no more than a weak reference.
    """
    reference = weakref.WeakMethod(renew)

    def after_in_child() -> None:
        method = reference()
        if method is not None:
            method()

    os.register_at_fork(after_in_child=after_in_child)
