"""When things are replaced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.renewal_time import is_urgent, renewal_delay_s, retry_delay_s, should_rotate

DAY = 86400.0


@pytest.mark.parametrize(
    ("now", "is_due"),
    [(0, False), (334 * DAY, False), (335 * DAY, True), (365 * DAY, True), (999 * DAY, True)],
)
def test_long_authority_is_due_thirty_days_before_its_end(now: float, is_due: bool) -> None:
    assert should_rotate(now, 0, 365 * DAY) is is_due


@pytest.mark.parametrize(("now", "is_due"), [(4.9, False), (5, True), (11, True)])
def test_short_authority_is_due_at_half_of_its_life(now: float, is_due: bool) -> None:
    assert should_rotate(now, 0, 10) is is_due


@given(st.floats(1, 1e8), st.floats(0, 1, exclude_max=True))
def test_renewal_falls_at_half_of_what_is_left_with_a_tenth_of_jitter(left: float, chance: float) -> None:
    assert left * 0.449 <= renewal_delay_s(left, chance) <= left * 0.551


@pytest.mark.parametrize("left", [-5.0, 0.0, 0.1])
def test_renewal_of_something_over_is_at_once_but_no_flood(left: float) -> None:
    assert renewal_delay_s(left, 0.5) == 0.1


def test_last_fifth_is_urgent() -> None:
    assert not is_urgent(21, 100)
    assert is_urgent(20, 100)


def test_retries_double_to_a_minute() -> None:
    delays = [retry_delay_s(attempt, None, 0.5) for attempt in (1, 2, 3, 6, 7, 8, 5000)]
    assert delays == pytest.approx([1, 2, 4, 32, 60, 60, 60])


def test_retries_never_wait_past_a_fifth_of_the_life_left() -> None:
    assert retry_delay_s(20, 100, 0.5) == pytest.approx(20)
    assert retry_delay_s(1, 0.2, 0.5) == pytest.approx(0.1)
    assert retry_delay_s(20, 2000, 0.5) == pytest.approx(60)
    assert [retry_delay_s(20, left, 0.5) for left in (0, -1, -30, -1_000)] == pytest.approx([1, 1, 30, 60])
