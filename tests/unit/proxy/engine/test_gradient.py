"""The limit of adaptive gates."""

import msgspec

from proxy.engine.portable.gradient import Gradient
from tests.support.vectors import Vector, vectors


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many come in and go, one each `every_s`, each taking `took_s`, `inside` at once. Then the limit is `limit`."""

    calls: int
    every_s: float
    took_s: float
    inside: int
    counts: bool = True
    limit: int


class Course(Vector, frozen=True, kw_only=True):
    min_limit: int
    max_limit: int
    steps: list[Step]


@vectors("gradient", "limit", Course)
def test_limit_follows_how_long_calls_take(vector: Course) -> None:
    gradient = Gradient(vector.min_limit, vector.max_limit)
    now = 0.0
    for step in vector.steps:
        for _ in range(step.calls):
            gradient.entered(now, step.inside)
            now += step.every_s
            entered_at = max(0.0, now - step.took_s)
            gradient.left(now, entered_at, 0.5, now - entered_at if step.counts else None)
        assert gradient.limit == step.limit, step


def test_limit_stays_within_other_bounds() -> None:
    gradient = Gradient(3, 1_000)
    for number in range(50):
        gradient.entered(number * 0.01, 3)
        gradient.left(number * 0.01 + 0.005, number * 0.01, 0.5, 0.005)
    assert gradient.limit == 10
    gradient.bound(3, 8)
    assert gradient.limit == 8
    gradient.bound(60, 200)
    assert gradient.limit == 60
