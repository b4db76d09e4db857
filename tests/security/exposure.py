"""Everything that a log, an error tracker or a client could get to see, collected and searched for secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pgfanout

__all__ = ["MARK", "Exposure", "locals_shown"]

MARK = "s3cr3t-"
"""What every secret of these tests begins with."""

_PACKAGE = str(Path(pgfanout.__file__).parent)


class Exposure(logging.Handler):
    """A handler of every record of every logger, to which errors, objects and answers are added by hand."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self._shown: list[str] = []

    @contextmanager
    def capturing(self) -> Iterator[Exposure]:
        """Take part in all logging at the lowest level while the block runs."""
        root = logging.getLogger()
        level = root.level
        root.addHandler(self)
        root.setLevel(1)
        try:
            yield self
        finally:
            root.setLevel(level)
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._shown += [record.getMessage(), repr(record.msg), repr(record.args), repr(vars(record))]
        if record.exc_info and record.exc_info[1] is not None:
            self.error(record.exc_info[1])

    def error(self, error: BaseException) -> None:
        """An error and all those behind it, those that `from None` hides included."""
        self._shown += traceback.format_exception(error)
        for each in _chain(error):
            self._shown += [str(each), repr(each), repr(each.args), *traceback.format_exception_only(each)]
            if isinstance(each, pgfanout.PgFanoutError):  # a driver's error has the connection as an attribute
                self._shown.append(repr(vars(each)))

    def show(self, *things: object) -> None:
        """The forms in which a thing gets into a text."""
        for thing in things:
            self._shown += [thing] if isinstance(thing, str) else [repr(thing), str(thing), f"{thing}"]

    def check(self) -> None:
        """Something was shown, and no secret in it."""
        assert self._shown, "nothing was captured at all"
        leaks = [_around(text) for text in self._shown if MARK in text]
        assert not leaks, f"a secret was shown: {leaks}"

    def __contains__(self, words: str) -> bool:
        return any(words in text for text in self._shown)


def locals_shown(error: BaseException) -> dict[str, str]:
    """The local variables of the library's own frames, as error trackers record them: function and name to repr."""
    frames = [frame for each in _chain(error) for frame, _ in traceback.walk_tb(each.__traceback__) if _is_ours(frame)]
    return {
        f"{frame.f_code.co_name}: {name}": repr(value) for frame in frames for name, value in frame.f_locals.items()
    }


def _around(text: str) -> str:
    at = text.index(MARK)
    return text[max(0, at - 80) : at + 40]


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is not None and each not in chain:
            chain.append(each)
            behind += [each.__cause__, each.__context__]
    return chain
