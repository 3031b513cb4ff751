"""Which failures a retry rule speaks of."""

from collections.abc import Iterator

from proxy.contract.plan import Cause, RetryPolicy
from proxy.engine.portable.retrying import covers
from tests.support.vectors import Vector, vectors


class Covers(Vector, frozen=True, kw_only=True):
    on: tuple[str, ...]
    http_codes: tuple[int, ...] | None
    grpc_codes: tuple[int, ...] | None
    cause: str
    status: int = 0
    code: int | None = None
    covers: bool


def no_pauses() -> Iterator[float]:
    return iter(())


@vectors("retries", "covers", Covers)
def test_rule_covers_the_failures_that_it_names(vector: Covers) -> None:
    policy = RetryPolicy(
        attempts=None,
        on=frozenset(map(Cause, vector.on)),
        http_codes=None if vector.http_codes is None else frozenset(vector.http_codes),
        grpc_codes=None if vector.grpc_codes is None else frozenset(vector.grpc_codes),
        delays_s=no_pauses,
    )
    assert covers(policy, Cause(vector.cause), vector.status, vector.code) == vector.covers
