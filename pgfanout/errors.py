"""The exception tree: one root, children named for the condition, with the data on them."""

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
    """The root of every error that this library raises by itself.

    Every error survives `pickle` and `copy`, its message and its data included.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the constructor with `args`: the message, and not the constructor's arguments.
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[PgFanoutError], args: tuple[Any, ...], attributes: dict[str, Any]) -> PgFanoutError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InvalidEventError(PgFanoutError, ValueError):
    """A channel, type, id, tenant or payload that breaks its rule.

    `field` is the offending part. The message shows the value and the rule; a payload's
    value is never shown, since messages end up in logs.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"invalid {field}: {problem}")
        self.field = field


class PayloadTooLargeError(PgFanoutError, ValueError):
    """The envelope is longer than NOTIFY can carry, or a payload longer than the history takes; `size` and
    `limit` are bytes of UTF-8."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the event needs {size} bytes, {limit} are possible: publish a key and let the page load the row"
        )
        self.size = size
        self.limit = limit


class HubClosedError(PgFanoutError):
    """The hub was closed, and a closed hub stays closed."""

    def __init__(self) -> None:
        super().__init__("the hub is closed; make a new one")


class HubConfigurationError(PgFanoutError):
    """The hub can't listen, and waiting won't cure it: the message says what has to change."""


class HubTimeoutError(PgFanoutError, TimeoutError):
    """The hub did not listen within the time allowed; the message has the last obstacle."""


class TooManyStreamsError(PgFanoutError):
    """The process has `limit` streams open, and that's as many as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} streams of this process are taken")
        self.limit = limit


class TooManyStreamsForUserError(TooManyStreamsError):
    """This user has `limit` streams open, and that's as many as one user may have."""

    def __init__(self, limit: int) -> None:
        PgFanoutError.__init__(self, f"all {limit} streams of this user are taken")
        self.limit = limit


class TooManyOpenFilesError(TooManyStreamsError):
    """The process may have `limit` descriptors, and what is left of them is for the server."""

    def __init__(self, limit: int) -> None:
        PgFanoutError.__init__(
            self, f"streams have what they may have of this process's {limit} descriptors: raise the limit (ulimit -n)"
        )
        self.limit = limit
