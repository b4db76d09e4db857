"""An outage is logged when it begins, once a minute that it lasts, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from pgfanout import PostgresHub, rate_limit
from pgfanout.backends.postgres import outage as module
from pgfanout.backends.postgres.outage import Outage
from pgfanout.backends.postgres.watchdog import Watchdog


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    class Limit(rate_limit.RateLimit):
        def __init__(self, seconds: float) -> None:
            super().__init__(seconds, clock.monotonic)

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "RateLimit", Limit)
    return clock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "pgfanout")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_hour_of_attempts_is_a_line_a_minute(clock: Clock, lines: Callable[[], list[str]]) -> None:
    outage = Outage()
    for _ in range(3600):
        outage.failed("refused")
        clock.now += 1.0
    outage.over("listening again; every subscription was told to refresh")
    assert lines()[0] == "not listening (refused), trying again"
    assert lines()[1] == "not listening for 60 s (refused), still trying"
    assert lines()[-1] == "listening again; every subscription was told to refresh (after 3600.0 s)"
    assert len(lines()) == 1 + 59 + 1


def test_a_connection_that_is_lost_again_and_again_is_a_pair_of_lines_in_ten_seconds(
    clock: Clock, lines: Callable[[], list[str]]
) -> None:
    outage = Outage()
    for _ in range(100):
        outage.failed("cut")
        clock.now += 0.125
        outage.over("listening again")
        clock.now += 0.125
    assert lines() == [
        "not listening (cut), trying again",
        "listening again (after 0.1 s)",
        "not listening (cut), trying again (39 more since the last such line)",
        "listening again (after 0.1 s)",
        "not listening (cut), trying again (39 more since the last such line)",
        "listening again (after 0.1 s)",
    ]


def test_what_was_not_logged_as_lost_is_not_logged_as_found(clock: Clock, lines: Callable[[], list[str]]) -> None:
    outage = Outage()
    outage.over("listening")
    assert lines() == []


def test_a_hub_whose_server_is_away_logs_one_line_for_many_attempts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = PostgresHub("postgresql://127.0.0.1:1/nowhere")
    attempts = 0

    def go_on(watchdog: Watchdog, seconds: float) -> bool:
        nonlocal attempts
        attempts += 1
        if attempts == 30:
            hub.close(0)
        return watchdog.stopped

    monkeypatch.setattr(Watchdog, "wait_stopped", go_on)
    with caplog.at_level(logging.INFO, "pgfanout"):
        hub.run()
    assert attempts == 30
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Connection refused" in caplog.text
