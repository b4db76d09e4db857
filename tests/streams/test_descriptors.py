"""Descriptors: how many streams may have, and that the server keeps some."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest

from pgfanout.errors import TooManyOpenFilesError, TooManyStreamsError
from pgfanout.streams import descriptors
from pgfanout.streams.descriptors import check_descriptors, raise_limit, set_reserve

from ..support.detached import open_descriptors
from ..support.processes import REPOSITORY

Limits = tuple[int, int]
MANY = 10**6
"""Streams, as many as make it worth a look."""


@pytest.fixture(autouse=True)
def usual_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test tells of the server is forgotten after it."""
    monkeypatch.setattr(descriptors, "_reserve", descriptors._DEFAULT_RESERVE)


def limit_to(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int | None = None) -> None:
    limits = (soft, soft if hard is None else hard)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits if which == resource.RLIMIT_NOFILE else (0, 0))


def next_is(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Have the next descriptor be this; those that were opened and not closed."""
    left: list[int] = []

    def dup(descriptor: int) -> int:
        left.append(number)
        return number

    monkeypatch.setattr(os, "dup", dup)
    monkeypatch.setattr(os, "close", left.remove)
    return left


@pytest.mark.parametrize(
    ("limit", "reserve", "highest"),
    [
        (1024, 0, 1024 - 64 - 1),
        (1024, 100, 1024 - 164 - 1),
        (100, 0, 49),  # a small process keeps half
        (128, 0, 63),
        (130, 0, 65),
        (1024, 5000, 511),
        (20_000, 1000, 20_000 - 1064 - 1),
    ],
)
def test_the_last_descriptors_are_the_servers(
    monkeypatch: pytest.MonkeyPatch, limit: int, reserve: int, highest: int
) -> None:
    limit_to(monkeypatch, limit, 10**6)
    set_reserve(reserve)
    for number in (3, highest):
        assert next_is(monkeypatch, number) == []
        check_descriptors(1, MANY)
    left = next_is(monkeypatch, highest + 1)
    with pytest.raises(TooManyOpenFilesError) as caught:
        check_descriptors(1, MANY)
    assert left == []
    assert caught.value.limit == limit
    assert str(limit) in str(caught.value)
    assert isinstance(caught.value, TooManyStreamsError)


@pytest.mark.parametrize(("in_use", "looks"), [(0, False), (447, False), (448, True), (1000, True)])
def test_as_long_as_streams_have_less_than_half_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, in_use: int, looks: bool
) -> None:
    limit_to(monkeypatch, 1024)
    next_is(monkeypatch, 1023)
    if looks:
        with pytest.raises(TooManyOpenFilesError):
            check_descriptors(1, in_use)
    else:
        check_descriptors(1, in_use)


def test_a_reserve_that_is_told_again_replaces_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, 1024)
    set_reserve(300)
    set_reserve(10)
    next_is(monkeypatch, 1024 - 74 - 1)
    check_descriptors(1, MANY)


def test_without_a_limit_every_descriptor_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, resource.RLIM_INFINITY)
    next_is(monkeypatch, 10**9)
    check_descriptors(1, MANY)


def test_without_a_single_descriptor_left_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, 1024)

    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "dup", none_left)
    with pytest.raises(TooManyOpenFilesError) as caught:
        check_descriptors(1, MANY)
    assert caught.value.limit == 1024


def test_checking_leaves_no_descriptor_open() -> None:
    before = open_descriptors()
    for _ in range(10):
        check_descriptors(1, MANY)
    assert open_descriptors() == before


def test_the_process_may_have_as_many_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, 1024, 4096)
    asked: list[tuple[int, Limits]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append((which, limits)))
    assert raise_limit() == 4096
    assert asked == [(resource.RLIMIT_NOFILE, (4096, 4096))]


@pytest.mark.parametrize("error", [OSError(1, "not permitted"), ValueError("no such number")])
def test_where_the_system_refuses_the_limit_stays_what_it_was(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    limit_to(monkeypatch, 1024, 4096)

    def refuse(which: int, limits: Limits) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 1024


@pytest.mark.parametrize("soft", [64, 256])
def test_a_real_process_opens_as_many_files_as_it_was_told_it_may(soft: int) -> None:
    program = f"""
import os, resource
hard = 256
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, hard))
from pgfanout.streams.descriptors import check_descriptors, raise_limit
assert raise_limit() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
check_descriptors(1, 10**6)
opened = []
try:
    while True:
        opened.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    print(opened[-1])
for descriptor in opened:  # whatever happens at the interpreter's end may need some
    os.close(descriptor)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env=dict(os.environ),
    )
    assert (done.stdout, done.stderr) == ("255\n", "")
