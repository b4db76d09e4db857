"""Few: a set that is its only member while it has one.

Most topics have one stream. A set for each of them would be memory, and work for the garbage collector, for nothing.
"""

from __future__ import annotations

from typing import TypeVar, Union

__all__ = ["Few", "Many", "copied", "excluding", "including", "members"]

_Member = TypeVar("_Member")


class Many(dict[_Member, None]):
    """Two members or more, in the order in which they came."""

    __slots__ = ()


Few = Union[_Member, Many[_Member], None]  # noqa: UP007 Python 3.10 can't evaluate `|` with a type variable


def including(few: Few[_Member], member: _Member) -> Few[_Member]:
    """Return the set with the member. A set of many is changed in place."""
    if few is None or few is member:
        return member
    many = few if isinstance(few, Many) else Many({few: None})
    many[member] = None
    return many


def excluding(few: Few[_Member], member: _Member) -> Few[_Member]:
    """Return the set without the member, if that is in it. A set of many is changed in place."""
    if few is member:
        return None
    if isinstance(few, Many):
        few.pop(member, None)
        return next(iter(few)) if len(few) == 1 else few
    return few


def copied(few: Few[_Member]) -> dict[_Member, None]:
    """Return a dict with the members as its keys. That of many is copied as it is, which is the fastest."""
    return few.copy() if isinstance(few, Many) else dict.fromkeys(members(few))


def members(few: Few[_Member]) -> tuple[_Member, ...]:
    """Return the members in their order."""
    if isinstance(few, Many):
        return tuple(few)
    return () if few is None else (few,)
