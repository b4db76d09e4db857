"""The exceptions. `PgFanoutError` is the root. Each child is named for its condition and carries the data."""

from __future__ import annotations

from typing import Any

__all__ = [
    "HubClosedError",
    "HubConfigurationError",
    "HubTimeoutError",
    "InvalidEventError",
    "PayloadTooLargeError",
    "PgFanoutError",
    "TooManyOpenFilesError",
    "TooManyStreamsError",
    "TooManyStreamsForUserError",
]


class PgFanoutError(Exception):
    """The root of all errors that this library raises itself.

    All of them survive `pickle` and `copy` with their message and their data.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # `Exception.__reduce__` calls the constructor with `args`, which is the message and not its arguments.
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[PgFanoutError], args: tuple[Any, ...], attributes: dict[str, Any]) -> PgFanoutError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InvalidEventError(PgFanoutError, ValueError):
    """A channel, type, id, tenant or payload breaks its rule.

    `field` names the offending part. The message shows the value and the rule. It never shows a payload, because
    messages end up in logs.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"invalid {field}: {problem}")
        self.field = field


class PayloadTooLargeError(PgFanoutError, ValueError):
    """The envelope is longer than NOTIFY allows, or the payload is longer than the history allows.

    `size` and `limit` are bytes of UTF-8.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes exceed the limit of {limit}: publish a key and let the page load the row")
        self.size = size
        self.limit = limit


class HubClosedError(PgFanoutError):
    """The hub was closed. It can't be started again."""

    def __init__(self) -> None:
        super().__init__("the hub is closed; make a new one")


class HubConfigurationError(PgFanoutError):
    """The hub can't listen until its configuration changes. The message says what to change."""


class HubTimeoutError(PgFanoutError, TimeoutError):
    """The hub did not begin to listen in time. The message has the last error."""


class TooManyStreamsError(PgFanoutError):
    """The process has `limit` streams open and may not have more."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"this process has reached its limit of {limit} streams")
        self.limit = limit


class TooManyStreamsForUserError(TooManyStreamsError):
    """The user has `limit` streams open and may not have more."""

    def __init__(self, limit: int) -> None:
        PgFanoutError.__init__(self, f"this user has reached the limit of {limit} streams")
        self.limit = limit


class TooManyOpenFilesError(TooManyStreamsError):
    """The process may have `limit` descriptors. Those that are still free are reserved for the server."""

    def __init__(self, limit: int) -> None:
        PgFanoutError.__init__(
            self, f"streams use all the descriptors they may use of this process's {limit}: raise the limit (ulimit -n)"
        )
        self.limit = limit
