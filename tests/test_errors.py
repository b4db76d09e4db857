"""The exception tree."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from pgfanout import errors
from pgfanout.envelope import MalformedEnvelopeError
from pgfanout.errors import (
    HubClosedError,
    HubConfigurationError,
    HubTimeoutError,
    InvalidEventError,
    PayloadTooLargeError,
    PgFanoutError,
    TooManyOpenFilesError,
    TooManyStreamsError,
    TooManyStreamsForUserError,
)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_the_one_root(name: str) -> None:
    assert issubclass(getattr(errors, name), PgFanoutError)


def test_the_root_is_no_kind_of_a_builtin_error() -> None:
    assert PgFanoutError.__bases__ == (Exception,)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidEventError, ValueError),
        (PayloadTooLargeError, ValueError),
        (MalformedEnvelopeError, ValueError),
        (HubTimeoutError, TimeoutError),
    ],
)
def test_who_catches_the_builtin_error_of_the_same_condition_catches_ours(
    error: type[PgFanoutError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


def test_an_invalid_event_error_names_the_field_and_the_problem() -> None:
    error = InvalidEventError("channel", "it is empty")
    assert (error.field, str(error)) == ("channel", "invalid channel: it is empty")


def test_a_payload_too_large_error_has_the_size_and_the_limit() -> None:
    error = PayloadTooLargeError(8123, 7999)
    assert (error.size, error.limit) == (8123, 7999)
    assert "8123" in str(error)
    assert "7999" in str(error)


def test_a_hub_closed_error_says_what_to_do() -> None:
    assert str(HubClosedError()) == "the hub is closed; make a new one"


def test_a_configuration_error_says_what_it_was_given() -> None:
    assert str(HubConfigurationError("check the password")) == "check the password"


@pytest.mark.parametrize("kind", [TooManyStreamsError, TooManyStreamsForUserError])
def test_too_many_streams_errors_have_the_limit(kind: type[TooManyStreamsError]) -> None:
    error = kind(17)
    assert error.limit == 17
    assert "17" in str(error)


def test_the_limit_of_a_user_is_told_from_the_limit_of_the_process() -> None:
    assert issubclass(TooManyStreamsForUserError, TooManyStreamsError)
    assert "process" in str(TooManyStreamsError(1))
    assert "user" in str(TooManyStreamsForUserError(1))
    assert "process" not in str(TooManyStreamsForUserError(1))


ERRORS = [
    PgFanoutError("root"),
    InvalidEventError("channel", "it is empty"),
    PayloadTooLargeError(8000, 7999),
    HubClosedError(),
    HubConfigurationError("check the user"),
    HubTimeoutError("not listening"),
    TooManyStreamsError(3),
    TooManyStreamsForUserError(2),
    TooManyOpenFilesError(1024),
    MalformedEnvelopeError("not a JSON object"),
]


def test_every_error_is_copied_below() -> None:
    assert {type(error).__name__ for error in ERRORS} >= set(errors.__all__)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_and_copy(
    error: PgFanoutError, duplicate: Callable[[PgFanoutError], PgFanoutError]
) -> None:
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args, twin.__dict__) == (str(error), error.args, error.__dict__)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_each_protocol_of_pickle(protocol: int) -> None:
    twin = pickle.loads(pickle.dumps(PayloadTooLargeError(8000, 7999), protocol))
    assert (twin.size, twin.limit) == (8000, 7999)
