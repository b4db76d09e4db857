"""The search for secrets finds what is shown."""

from __future__ import annotations

import logging

import pytest

from .exposure import MARK, Exposure


def test_the_search_finds_what_is_hidden_behind_another_error(exposure: Exposure) -> None:
    error = ValueError("outer")
    error.__context__ = KeyError(f"{MARK}inner")
    error.__suppress_context__ = True
    exposure.error(error)
    with pytest.raises(AssertionError, match="a secret was shown"):
        exposure.check()


def test_the_search_finds_what_any_logger_says_at_the_lowest_level(exposure: Exposure) -> None:
    logging.getLogger("pgfanout.anything").debug("%s", f"{MARK}logged")
    with pytest.raises(AssertionError, match="a secret was shown"):
        exposure.check()
