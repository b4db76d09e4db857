"""When a session is asked and has to hear itself, and that it is found deaf or dead in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgfanout.backends.postgres.heartbeat import Heartbeat

SECONDS, TIMEOUT = 5.0, 5.0


def test_an_idle_session_pulses_after_three_quarters_of_a_heartbeat_or_up_to_one() -> None:
    for _ in range(100):
        heartbeat = Heartbeat(SECONDS, 100.0)
        assert 103.75 <= heartbeat.due_at <= 105.0
        assert heartbeat.needs_pulse(heartbeat.due_at)


def test_idle_sessions_do_not_pulse_at_the_same_moment() -> None:
    assert len({Heartbeat(SECONDS, 0.0).due_at for _ in range(20)}) > 10


def test_who_hears_something_all_the_time_is_asked_once_in_a_heartbeat_and_never_pulses() -> None:
    heartbeat, asked = Heartbeat(SECONDS, 0.0), []
    for tenth in range(1, 1000):
        now = tenth / 10
        heartbeat.heard(now)
        if now >= heartbeat.due_at:
            assert not heartbeat.needs_pulse(now)
            heartbeat.answered(now, now, pulse=False)
            asked.append(now)
    assert asked == [5.0 * n for n in range(1, 20)]


def test_what_has_been_heard_long_ago_puts_nothing_off() -> None:
    heartbeat = Heartbeat(SECONDS, 100.0)
    due = heartbeat.due_at
    heartbeat.heard(float("-inf"))
    heartbeat.heard(99.0)
    assert heartbeat.due_at == due


def test_an_answered_question_is_no_proof_of_hearing() -> None:
    heartbeat = Heartbeat(SECONDS, 0.0)
    heartbeat.answered(3.0, 3.0, pulse=False)
    assert heartbeat.due_at <= 5.0
    heartbeat.answered(4.0, 4.0, pulse=True)
    assert 7.75 <= heartbeat.due_at <= 9.0


def test_between_two_questions_that_take_longer_than_a_heartbeat_there_is_a_break() -> None:
    heartbeat = Heartbeat(SECONDS, 0.0)
    heartbeat.answered(5.0, 11.0, pulse=True)
    assert heartbeat.due_at == 12.25
    heartbeat.answered(12.25, 12.75, pulse=True)
    assert heartbeat.due_at >= 13.25


def test_a_question_after_three_quarters_of_a_heartbeat_of_silence_is_a_pulse() -> None:
    heartbeat = Heartbeat(SECONDS, 0.0)
    heartbeat.heard(1.0)
    assert not heartbeat.needs_pulse(4.7)
    assert heartbeat.needs_pulse(4.8)


def test_a_hundred_idle_hubs_pulse_about_once_in_a_heartbeat_in_all() -> None:
    hubs, now, pulses, heartbeats = [Heartbeat(SECONDS, 0.0) for _ in range(100)], 0.0, 0, 50
    while now < heartbeats * SECONDS:
        now = min(hub.due_at for hub in hubs)
        for hub in hubs:
            if now >= hub.due_at:
                pulse = hub.needs_pulse(now)
                hub.answered(now, now, pulse=pulse)
                if pulse:
                    pulses += 1
                    for other in hubs:
                        other.heard(now)
    assert heartbeats <= pulses <= 1.4 * heartbeats


@given(
    heard=st.lists(st.floats(0.0, 60.0), max_size=30),
    deaf_since=st.floats(0.0, 60.0),
)
def test_a_session_that_is_deaf_or_dead_is_given_up_in_time(heard: list[float], deaf_since: float) -> None:
    """Whatever it hears before, and whenever that is: the next question is sent within a heartbeat of the moment."""
    arrivals = sorted(at for at in heard if at <= deaf_since)
    heartbeat = Heartbeat(SECONDS, 0.0)
    while heartbeat.due_at <= deaf_since or arrivals:
        if arrivals and arrivals[0] <= heartbeat.due_at:
            heartbeat.heard(arrivals.pop(0))
        else:
            sent = heartbeat.due_at
            heartbeat.answered(sent, sent, pulse=heartbeat.needs_pulse(sent))
    # Of a dead one the next question has no answer; a deaf one may answer questions, until a pulse is due.
    assert heartbeat.due_at + TIMEOUT <= deaf_since + SECONDS + TIMEOUT
    while not heartbeat.needs_pulse(heartbeat.due_at):
        heartbeat.answered(heartbeat.due_at, heartbeat.due_at, pulse=False)
    assert heartbeat.due_at + TIMEOUT <= deaf_since + SECONDS + TIMEOUT
