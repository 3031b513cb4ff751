"""Which endpoints are left out for what they answer, by the tables that the native engine's pass too."""

import msgspec
import pytest

from proxy.contract.balancing import EndpointTurn, Outliers
from proxy.contract.outcome import Attempt
from proxy.contract.plan import Cause
from proxy.engine.portable.balance import Load
from proxy.engine.portable.outliers import OutlierWatch, has_failed
from tests.support.vectors import Vector, vectors


class Verdict(Vector, frozen=True, kw_only=True):
    cause: str | None = None
    said: str | None = None
    status: int = 0
    code: int | None = None
    sent: bool = True
    took_s: float = 0.0
    tunnel: bool = False
    failed: bool | None


@vectors("outliers", "verdicts", Verdict)
def test_attempt_speaks_against_its_endpoint(vector: Verdict) -> None:
    attempt = Attempt(
        "a",
        1,
        ended_ns=1_000 + int(vector.took_s * 1e9),
        cause=None if vector.cause is None else Cause(vector.cause),
        status=vector.status,
        grpc_code=vector.code,
        said=None if vector.said is None else Cause(vector.said),
        sent_ns=1_000 if vector.sent else 0,
    )
    assert has_failed(attempt, is_tunnel=vector.tunnel) is vector.failed


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At a moment attempts at the endpoint `to` end, and the last of them changes what `turn` says (reason, length, times), or nothing;
    or a call to one begins, or it can't be reached; or that is looked at: who is out, and what share of calls each gets.
    """

    at: float
    to: int = 0
    failed: tuple[bool | None, ...] = ()
    chance: float = 0.0
    turn: tuple[str, float, int] | None = None
    begin: int | None = None
    unreachable: int | None = None
    out: tuple[int, ...] | None = None
    share: tuple[float, ...] | None = None


class Watched(Vector, frozen=True, kw_only=True):
    endpoints: int
    consecutive: int = 5
    requests: int = 100
    max_percent: int = 10
    steps: list[Step]


@vectors("outliers", "watches", Watched)
def test_endpoints_are_left_out_and_come_back(vector: Watched) -> None:
    loads = [Load(address=str(number)) for number in range(vector.endpoints)]
    watch = OutlierWatch()
    rules = Outliers(
        consecutive=vector.consecutive, rate_requests=vector.requests, max_percent=vector.max_percent
    )
    watch.update("c", rules, loads)
    for step in vector.steps:
        turns: list[EndpointTurn] = []
        for failed in step.failed:
            assert not turns, step
            turns = watch.heard(loads, loads[step.to], failed, step.at, lambda: step.chance)  # noqa: B023 - called at once
        if step.turn is None:
            assert not turns, step
        else:
            (turn,) = turns
            reason, for_s, times = step.turn
            assert (turn.cluster, str(turn.reason), turn.times) == ("c", reason, times), step
            assert turn.for_s == pytest.approx(for_s), step
        if step.begin is not None:
            watch.begin(loads[step.begin], step.at)
        if step.unreachable is not None:
            loads[step.unreachable].eject(step.at)
        if step.out is not None:
            assert tuple(n for n, load in enumerate(loads) if load.standing.is_out(step.at)) == step.out, step
        if step.share is not None:
            assert [load.standing.share(step.at) for load in loads] == pytest.approx(list(step.share)), step


def test_nothing_is_held_against_one_that_is_left_alone_or_where_there_are_no_rules() -> None:
    loads = [Load(address="a"), Load(address="b")]
    watch = OutlierWatch()
    watch.update("c", Outliers(consecutive=1), loads)
    assert watch.heard(loads, loads[0], True, 1.0, lambda: 0.0)
    watch.update("c", None, loads)
    assert not loads[0].standing.is_out(1.0)
    watch.update("c", Outliers(consecutive=1), loads)
    assert watch.heard(loads, loads[0], True, 2.0, lambda: 0.0)
    watch.update("c", Outliers(consecutive=1), loads[:1])
    assert not loads[0].standing.is_out(2.0)
