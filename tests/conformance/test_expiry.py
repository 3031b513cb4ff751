"""Connections between proxies end with the certificates that they were made under, whoever would keep them open.

A sweep a second finds them, so everything here takes as long as the leaf lives and at most a second and the skew more.
"""

import asyncio
import time
from datetime import timedelta

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from tests.conformance.apps import http_app
from tests.conformance.frames import FramePeer, Kind, dial, serving
from tests.conformance.harness import always, plan, running
from tests.conformance.identities import Mint, spiffe
from tests.support.http_client import connect

LIFE = timedelta(seconds=6)  # a quarter of it is longer than the time between sweeps
LIMITS = Limits(expiry_skew_s=0.2)
LATE_S = 8.0  # a sweep, the skew, and a busy machine; less than the skew that is usual


async def test_connection_of_a_caller_ends_with_the_certificate_of_either_side(
    engine: str, mint: Mint
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_callee_ends_it(engine, mint, callers=LIFE, own=timedelta(hours=1)))
        tasks.create_task(_callee_ends_it(engine, mint, callers=timedelta(hours=1), own=LIFE))


async def _callee_ends_it(engine: str, mint: Mint, *, callers: timedelta, own: timedelta) -> None:
    async with http_app() as app, running(engine, limits=LIMITS) as node:
        context = mint.client_context("caller", life=callers)
        ends_at = time.time() + min(own, callers).total_seconds()
        node.engine.set_identity(mint.identity("callee", life=own))
        node.cluster("app", app)
        port = await node.listen(always(plan()), name="peer", tls="mesh")
        async with dial(port, tls=context) as peer:
            assert (await peer.whole(await peer.request(b"/echo"))).status == 200
            stream = await peer.request(b"/echo", method=b"POST", body=b"on and on", end=False)
            goaway = await peer.until(lambda f: f.kind == Kind.GOAWAY)
            assert time.time() < ends_at, "it was not drained before"
            assert goaway.last_stream >= stream
            await peer.to_the_end()
            assert -1.0 < time.time() - ends_at < LATE_S
            assert not peer.message(stream).ended
        await node.seen.until(lambda: node.seen.refused["certificate-expired"] == 1)


async def test_connection_to_a_callee_ends_with_the_certificate_of_either_side(
    engine: str, mint: Mint
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_caller_ends_it(engine, mint, callees=LIFE, own=timedelta(hours=1)))
        tasks.create_task(_caller_ends_it(engine, mint, callees=timedelta(hours=1), own=LIFE))


async def _caller_ends_it(engine: str, mint: Mint, *, callees: timedelta, own: timedelta) -> None:
    ended_at = asyncio.get_running_loop().create_future()

    async def answer_for_ever(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, end=False)
        try:
            await peer.to_the_end()
        finally:
            ended_at.set_result(time.time())

    ends_at = time.time() + min(own, callees).total_seconds()
    context = mint.server_context("callee", life=callees)
    async with serving(answer_for_ever, tls=context) as callee, running(engine, limits=LIMITS) as node:
        node.engine.set_identity(mint.identity("caller", life=own))
        node.cluster("app", callee, wire="postern", tls="mesh")
        port = await node.listen(always(plan(expect=frozenset({spiffe("callee")}))))
        async with connect(port) as caller:
            await caller.send_head("GET", "/for/ever")
            outcome = await node.seen.outcome()
            async with asyncio.timeout(LATE_S):
                assert -1.0 < await ended_at - ends_at < LATE_S
    assert outcome.cause is Cause.RESET_LATE
    assert "certificate" in outcome.attempts[-1].detail
    assert node.seen.refused["certificate-expired"] == 1
