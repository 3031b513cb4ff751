"""A call that the callee's proxy denies: a decision and no failure, so that no retry, circuit breaker or ejection comes of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.contract.balancing import Outliers
from proxy.contract.breakers import BreakerUse
from proxy.contract.engine import Cluster, Upstream
from proxy.contract.outcome import NotRetried
from proxy.contract.plan import Cause
from tests.conformance.frames import dial
from tests.conformance.harness import Node, always, plan, reply, retry, running
from tests.conformance.identities import Mint, spiffe
from tests.conformance.test_breakers import a_spec, call, get

USE = BreakerUse(name="app", target="app")
ANY = retry(3, http_codes=None, grpc_codes=None)
NAMED = retry(3, http_codes=frozenset({403}), grpc_codes=frozenset({7}))


@asynccontextmanager
async def denying(engine: str, **fields: Any) -> AsyncIterator[tuple[int, Node]]:
    """A caller's port and proxy before two proxies of a callee that deny each call."""
    mint = Mint()
    async with running(engine) as front, running(engine) as back:
        back.engine.set_identity(mint.identity("callee"))
        peers = [
            await back.listen(always(reply(Cause.DENIED)), name=name, tls="mesh")
            for name in ("peer", "peer@2")
        ]
        front.engine.set_identity(mint.identity("caller"))
        front.engine.set_cluster(
            Cluster(
                key="app",
                wire="postern",
                tls="mesh",
                upstreams=tuple(Upstream(address=f"127.0.0.1:{port}") for port in peers),
                outliers=Outliers(consecutive=1, max_percent=100),
            )
        )
        front.engine.set_breaker("app", a_spec("consecutiveFailures >= 1"))
        expect = frozenset({spiffe("callee")})
        yield await front.listen(always(plan(expect=expect, **fields))), front


async def called(port: int, *, is_grpc: bool, times: int = 1) -> list[tuple[int | bytes, bytes]]:
    """What came of calls one after the other: the status and `postern-error`."""
    async with dial(port) as caller:
        return [*await (call if is_grpc else get)(caller, *[b"/a.B/C"] * times)]


BOTH = pytest.mark.parametrize("is_grpc", [False, True], ids=["http", "grpc"])
ANSWER = {False: (403, b"denied"), True: (b"7", b"denied")}


@BOTH
async def test_denial_is_not_retried_and_the_call_says_so(engine: str, is_grpc: bool) -> None:
    async with denying(engine, retries=(ANY,)) as (port, front):
        assert await called(port, is_grpc=is_grpc) == [ANSWER[is_grpc]]
        outcome = await front.seen.outcome()
    assert (len(outcome.attempts), outcome.not_retried) == (1, NotRetried.DENIED)


@BOTH
async def test_denial_is_retried_by_a_rule_that_names_its_status(engine: str, is_grpc: bool) -> None:
    async with denying(engine, retries=(NAMED,)) as (port, front):
        assert await called(port, is_grpc=is_grpc) == [ANSWER[is_grpc]]
        outcome = await front.seen.outcome()
    assert (len(outcome.attempts), outcome.not_retried) == (3, NotRetried.NO_ATTEMPTS)


@BOTH
@pytest.mark.parametrize("is_opening", [False, True])
async def test_denial_opens_no_breaker_and_ejects_no_endpoint(
    engine: str, is_grpc: bool, is_opening: bool
) -> None:
    use = BreakerUse(name="app", target="app", is_opening=is_opening)
    async with denying(engine, breaker=use) as (port, front):
        assert await called(port, is_grpc=is_grpc, times=6) == [ANSWER[is_grpc]] * 6
        await front.seen.outcome(5)
        (glance,) = front.engine.breakers()
    assert (glance.state, glance.counts.total_failures) == ("closed", 0)
    assert front.seen.endpoint_turns == []


@BOTH
async def test_denial_is_a_failure_to_a_plan_that_says_so(engine: str, is_grpc: bool) -> None:
    """As Dapr has it."""
    async with denying(engine, retries=(ANY,), denials_fail=True) as (port, front):
        assert await called(port, is_grpc=is_grpc) == [ANSWER[is_grpc]]
        outcome = await front.seen.outcome()
    assert (len(outcome.attempts), outcome.not_retried) == (3, NotRetried.NO_ATTEMPTS)
    async with denying(engine, breaker=USE, denials_fail=True) as (port, front):
        found = await called(port, is_grpc=is_grpc, times=2)
    assert [said for _, said in found] == [b"denied", b"breaker-open"]
