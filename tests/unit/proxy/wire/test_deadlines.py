"""How long an HTTP call may still take, as its caller says it."""

import pytest

from proxy.wire.deadlines import left_ms, read_left_s, told
from tests.support.vectors import Text, Vector, octets, vectors

Fields = list[tuple[str, Text]]


class Left(Vector, frozen=True, kw_only=True):
    headers: Fields
    now_s: float
    left_s: float | None


class Told(Vector, frozen=True, kw_only=True):
    headers: Fields
    left_s: float
    told: Fields


def fields(of: Fields) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), octets(data)) for name, data in of]


@vectors("deadlines", "left", Left)
def test_the_least_that_is_said_counts(vector: Left) -> None:
    found = read_left_s(fields(vector.headers), vector.now_s)
    assert found == (None if vector.left_s is None else pytest.approx(vector.left_s))


@vectors("deadlines", "told", Told)
def test_what_is_left_is_told_on(vector: Told) -> None:
    assert told(fields(vector.headers), vector.left_s) == fields(vector.told)


def test_without_a_deadline_fields_stay_as_they_are() -> None:
    sent = [(b"x-envoy-expected-rq-timeout-ms", b"soon")]
    assert told(sent, None) == sent


@pytest.mark.parametrize(("left_s", "millis"), [(0.0, 1), (-1.0, 1), (0.0001, 1), (0.0011, 2), (2.0, 2000)])
def test_milliseconds_are_rounded_up_and_never_none(left_s: float, millis: int) -> None:
    assert left_ms(left_s) == millis
