from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.integrations.serving.request_reporter import RateLimit

PAUSES = st.lists(st.floats(0, 3), max_size=60)


@given(per_second=st.floats(1, 50), pauses=PAUSES)
def test_no_more_are_let_through_than_the_time_allows(per_second: float, pauses: list[float]) -> None:
    now = 0.0
    limit = RateLimit(per_second)
    taken = 0
    for pause in pauses:
        now += pause
        taken += limit.acquire(now)
    assert taken <= per_second * now + per_second + 1e-6


def test_a_quiet_service_has_every_request_through() -> None:
    now = 0.0
    limit = RateLimit(2)
    for _ in range(100):
        now += 0.5
        assert limit.acquire(now)


def test_nothing_is_let_through_where_nothing_is_allowed() -> None:
    assert not RateLimit(0).acquire(1e6)


@pytest.mark.parametrize("per_second", [1, 7, 20, 1000])
def test_a_burst_of_one_seconds_amount_is_allowed(per_second: int) -> None:
    limit = RateLimit(per_second)
    assert sum(limit.acquire(-5.0) for _ in range(2 * per_second)) == per_second
