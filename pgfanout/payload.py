"""The payload of an event: from what `publish` takes to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .errors import InvalidEventError

__all__ = ["JsonDefault", "payload_json"]

JsonDefault: TypeAlias = Callable[[Any], Any]
"""A function as `json.dumps` takes it for `default`: it returns something that JSON has, or raises `TypeError`."""


def payload_json(payload: object, json_default: JsonDefault | None = None) -> bytes:
    """Return a payload as JSON in UTF-8. `bytes` are returned as they are, since `Event` checks them.

    `json_default` converts values that JSON does not have, as the `default` of `json.dumps`. Raise `InvalidEventError`.
    """
    if isinstance(payload, bytes):
        return payload
    encoder = _PLAIN if json_default is None else _encoder(json_default)
    try:
        text = encoder.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        # These messages name a type or a rule, never the value.
        problem = str(error)
    else:
        try:
            return text.encode()
        except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
            return _encoder(json_default, ensure_ascii=True).encode(payload).encode()
    raise InvalidEventError("payload", f"not serialisable as JSON: {problem}")


def _encoder(json_default: JsonDefault | None, *, ensure_ascii: bool = False) -> json.JSONEncoder:
    return json.JSONEncoder(
        ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"), default=_converting(json_default)
    )


def _converting(json_default: JsonDefault | None) -> JsonDefault:
    """Return the function for the encoder. Its errors name a type. The application's own errors may show a value."""

    def convert(value: Any) -> Any:
        name = type(value).__name__
        if json_default is None:
            raise TypeError(
                f"{name} is not JSON serializable: convert it, or give the hub a json_default=... that does"
            )
        try:
            return json_default(value)
        except (TypeError, ValueError):
            pass
        raise TypeError(
            f"{name} is not JSON serializable: convert it, or have the hub's json_default do so (with Flask, app.json)"
        )

    return convert


_PLAIN: Final = _encoder(None)
"""The encoder without a `json_default`. To make one takes longer than to encode a small payload."""
