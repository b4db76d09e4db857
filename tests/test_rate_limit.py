from pgfanout.rate_limit import RateLimit


def test_the_first_is_let_through_and_the_next_ones_are_counted() -> None:
    now = [0.0]
    limit = RateLimit(10.0, clock=lambda: now[0])
    assert limit.take() == 0
    assert limit.take() is None
    now[0] = 9.9
    assert limit.take() is None
    now[0] = 10.0
    assert limit.take() == 2
    assert limit.take() is None


def test_what_comes_seldom_is_always_let_through() -> None:
    now = [0.0]
    limit = RateLimit(10.0, clock=lambda: now[0])
    for moment in (0.0, 10.0, 25.0):
        now[0] = moment
        assert limit.take() == 0
