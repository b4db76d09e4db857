"""The values in requests. Each function returns the checked value, or answers 400 with the reason."""

from __future__ import annotations

import unicodedata
from typing import Any, Final, NoReturn

from flask import Request, abort

from pgfanout import InvalidEventError
from pgfanout.topic import as_text

from .orders import STATUSES

__all__ = ["json_object", "status", "tenant", "title"]

TITLE_LIMIT: Final = 80

# Control characters and lone surrogates. JSON can contain NUL and lone surrogates, but PostgreSQL can't store them.
_UNPRINTABLE: Final = {"Cc", "Cs"}


def json_object(request: Request) -> dict[str, Any]:
    """Return the request's body, whatever its content type says."""
    try:
        body = request.get_json(force=True, silent=True)
    except RecursionError:
        body = None
    if not isinstance(body, dict):
        _refuse("the body is not a JSON object")
    return body


def tenant(value: Any) -> str:
    """Return a tenant's text, from the query string or a body."""
    if value is None or value == "":
        _refuse("tenant is missing")
    try:
        return as_text(value)
    except InvalidEventError as error:
        _refuse(str(error))


def title(value: Any) -> str:
    """Return an order's title: one line of at most `TITLE_LIMIT` characters, with single blanks."""
    if value is None:
        _refuse("title is missing")
    if not isinstance(value, str):
        _refuse(f"title has to be a string, not {_shown(value)}")
    text = " ".join(value.split())
    if not text:
        _refuse("title is empty")
    if len(text) > TITLE_LIMIT:
        _refuse(f"title has {len(text)} characters, the limit is {TITLE_LIMIT}")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in text):
        _refuse("title has a control character")
    return text


def status(value: Any) -> str:
    """Return a status: one of the board's columns."""
    if value is None:
        _refuse("status is missing")
    if not isinstance(value, str) or value not in STATUSES:
        _refuse(f"status has to be one of {', '.join(STATUSES)}, not {_shown(value)}")
    return value


def _refuse(problem: str) -> NoReturn:
    abort(400, problem)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
