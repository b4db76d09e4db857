"""What an error shows, to a log or an error tracker."""

from __future__ import annotations

import traceback

__all__ = ["everything_shown"]


def everything_shown(error: BaseException) -> str:
    """What a log or an error tracker could show of an error and of those behind it."""
    shown = traceback.format_exception(error)
    behind: BaseException | None = error
    while behind is not None:
        shown += [str(behind), repr(behind), repr(behind.args), repr(vars(behind))]
        behind = behind.__cause__ or behind.__context__
    return "".join(shown)
