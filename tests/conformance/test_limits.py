"""Limits that gates hold: rates that tell callers when to come again, queues, adaptive limits, throttles, connections of one caller."""

import asyncio
import json
from typing import Any

import grpc
import pytest

from proxy.contract.gates import (
    AdaptiveGate,
    ConcurrencyGate,
    EachGate,
    LagGate,
    RateGate,
    ThrottleGate,
    connections_gate,
)
from proxy.contract.plan import Cause, Route
from tests.conformance.apps import grpc_app, http_app, raw_app
from tests.conformance.frames import END_STREAM, FramePeer, Kind, dial, frame, serving
from tests.conformance.harness import DEADLINE_S, EDITS, always, leading, plan, running
from tests.conformance.identities import Mint, spiffe
from tests.conformance.test_gates import BUSY, OK, App, gated, state, waiting
from tests.support.echo_client import EchoClient
from tests.support.http_client import connect
from tests.support.proto.echo_pb2 import EchoRequest

WRITES = RateGate(per_s=0.1, burst=1, name="writes", policy='"writes";q=6;w=60')


async def test_named_rate_tells_an_http_caller_which_limit_it_is_and_when_to_come_again(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, gates=("g",)) as way,
        connect(way.port) as caller,
    ):
        way.front.engine.set_gate("g", WRITES)
        first = await caller.request("GET", "/")
        second = await caller.request("GET", "/")
        refused = state(way.front).refused
    assert (first.status, first.get("ratelimit")) == (200, "")
    assert (second.status, second.get("postern-error")) == (429, "rate-limited")
    assert second.get("ratelimit-policy") == '"writes";q=6;w=60'
    assert second.get("ratelimit") == '"writes";r=0;t=10'
    assert [value for name, value in second.headers if name.lower() == "retry-after"] == ["10"]
    assert b"from 127.0.0.1: the limit writes is used up, try again in 10 s" in second.body
    assert refused == {"rate": 1}


async def test_named_rate_tells_a_grpc_caller_in_its_trailers(engine: str) -> None:
    async with (
        grpc_app() as app,
        leading(engine, "one", app, wire="h2c", gates=("g",)) as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        way.front.engine.set_gate("g", WRITES)
        client = EchoClient(channel)
        await client.unary(EchoRequest(message="hi"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(message="hi"))
    pairs: Any = caught.value.trailing_metadata()  # pairs; the stubs say otherwise
    trailers = dict(pairs)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the limit writes is used up, try again in 10 s" in str(caught.value.details())
    assert trailers["postern-error"] == "rate-limited"
    assert trailers["ratelimit-policy"] == '"writes";q=6;w=60'
    assert trailers["ratelimit"] == '"writes";r=0;t=10'
    assert trailers["retry-after"] == "10"
    assert 9_000 < int(str(trailers["grpc-retry-pushback-ms"])) <= 10_000


async def test_grpc_client_that_retries_comes_again_when_it_is_told(engine: str) -> None:
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "30s",
        "maxBackoff": "30s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    async with (
        grpc_app() as app,
        leading(engine, "one", app, wire="h2c", gates=("g",)) as way,
        grpc.aio.insecure_channel(
            f"127.0.0.1:{way.port}", options=[("grpc.service_config", config)]
        ) as channel,
    ):
        way.front.engine.set_gate("g", RateGate(per_s=2.0, burst=1, name="calls", policy='"calls";q=2;w=1'))
        client = EchoClient(channel)
        async with asyncio.timeout(DEADLINE_S):  # and not after 30 s, which is its own pause
            answers = [await client.unary(EchoRequest(message=str(number))) for number in range(3)]
        refused = state(way.front).refused
    assert [answer.message for answer in answers] == ["0", "1", "2"]
    assert refused["rate"] >= 2


async def test_rate_is_of_each_caller_by_its_proven_id(engine: str, mint: Mint) -> None:
    answers = []
    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        node.engine.set_gate("g", WRITES)
        port = await node.listen(always(plan(gates=("g",))), name="peer", tls="mesh")
        for name in ("one", "two", "one", "two"):
            async with dial(port, tls=mint.client_context(name)) as caller:
                answers.append(await caller.whole(await caller.request(b"/echo")))
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert f"from {spiffe('two')}: the limit writes".encode() in answers[3].body


async def test_shared_rate_is_of_all_callers_together(engine: str, mint: Mint) -> None:
    statuses = []
    shared = RateGate(per_s=0.1, burst=1, is_shared=True, name="all", policy='"all";q=6;w=60')
    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        node.engine.set_gate("g", shared)
        port = await node.listen(always(plan(gates=("g",))), name="peer", tls="mesh")
        for name in ("one", "two"):
            async with dial(port, tls=mint.client_context(name)) as caller:
                statuses.append((await caller.whole(await caller.request(b"/echo"))).status)
    assert statuses == [200, 429]


async def test_wait_for_room_ends_after_as_long_as_the_gate_says(engine: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, gates=("g",)) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", ConcurrencyGate(limit=1, queue=8, wait_s=0.05))
        first = await caller.request()
        await app.begun.acquire()
        late = await caller.whole(await caller.request())
        app.go.set()
        assert (await caller.whole(first)).status == 200
        after = await caller.whole(await caller.request())
        seen = state(way.front)
    assert (late.status, late.get(b"postern-error"), late.get(b"retry-after")) == (503, b"shed", b"1")
    assert b"no room within 0.05 s" in late.body
    assert after.status == 200
    assert (seen.waiting, seen.refused) == (0, {"queue-timeout": 1})


async def test_from_a_full_queue_who_came_last_comes_in_first(engine: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, gates=("g",)) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", ConcurrencyGate(limit=1, queue=2, newest_first=True))
        inside = await caller.request()
        await app.begun.acquire()
        queued = []
        for number in range(1, 3):
            queued.append(await caller.request())
            await waiting(way.front, number)
        newest = await caller.request()
        displaced = await caller.whole(queued[0])
        assert (displaced.status, b"queue full (limit 2)" in displaced.body) == (503, True)
        app.go.set()
        statuses = [(await caller.whole(stream)).status for stream in (inside, newest, queued[1])]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 4)
        ended = [outcome.started_ns for outcome in way.front.seen.outcomes if outcome.cause is None]
    assert statuses == [200] * 3
    assert ended[1] > ended[2] > ended[0]  # who came last went before who came second


async def test_adaptive_limit_measures_with_few_inside_and_then_lets_in_more(engine: str) -> None:
    app = App()
    app.go.set()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, gates=("g",)) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", AdaptiveGate(queue=100, wait_s=30.0))
        streams = [await caller.request() for _ in range(60)]
        statuses = {(await caller.whole(stream)).status for stream in streams}
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 60)
        seen = state(way.front)
    assert statuses == {200}
    assert seen.limit is not None
    assert seen.limit > 3
    assert (seen.inside, seen.waiting, seen.refused) == (0, 0, {})


async def test_throttle_holds_attempts_back_once_the_callee_refuses_much(engine: str) -> None:
    app = App([BUSY])
    app.go.set()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **gated("attempt", "g")) as way,
        connect(way.port) as caller,
    ):
        way.front.engine.set_gate("g", ThrottleGate())
        answers = [await caller.request("GET", "/") for _ in range(100)]
        held_back = [answer for answer in answers if answer.get("postern-error") == "shed"]
        app.answers = [OK]
        refused = state(way.front).refused
    assert {answer.status for answer in answers} == {503}
    assert not any(answer.get("postern-error") for answer in answers[:10])  # a few refusals are no pattern
    assert len(held_back) > 60
    assert refused == {"throttle": len(held_back)}
    assert b"it accepted 0 of " in held_back[0].body


async def test_calls_are_shed_while_the_engine_is_late(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, gates=("g",)) as way,
        connect(way.port) as caller,
    ):
        assert (await caller.request("GET", "/")).status == 200
        # No timer runs on the dot: so every look finds the engine late.
        way.front.engine.set_gate("g", LagGate(above_s=0.0, for_s=1.0))
        async with asyncio.timeout(DEADLINE_S):
            while (  # noqa: ASYNC110 - the engine has no event for a look
                answer := await caller.request("GET", "/")
            ).status == 200:
                await asyncio.sleep(0.05)
        way.front.engine.set_gate("g", LagGate(above_s=60.0, for_s=1.0))
        async with asyncio.timeout(DEADLINE_S):
            while (await caller.request("GET", "/")).status != 200:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.05)
    assert (answer.status, answer.get("postern-error"), answer.get("retry-after")) == (503, "shed", "1")
    assert b"late by more than 0 s for 1 s" in answer.body


async def test_callee_that_has_no_room_is_not_taken_for_a_fast_one(engine: str, mint: Mint) -> None:
    async with http_app() as app, running(engine) as front, running(engine) as full, running(engine) as free:
        for node in (full, free):
            node.engine.set_identity(mint.identity("callee"))
            node.cluster("app", app)
        full.engine.set_gate("g", ConcurrencyGate(limit=0, queue=0))
        ports = [
            await node.listen(always(plan(gates=("g",))), name="peer", tls="mesh") for node in (full, free)
        ]
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", *ports, wire="postern", tls="mesh")
        expect = frozenset({spiffe("callee")})
        async with connect(await front.listen(always(plan(expect=expect)))) as caller:
            statuses = [(await caller.request("GET", "/")).status for _ in range(60)]
        loads = {load["address"]: load for load in front.engine.loads("app")}
    assert statuses.count(503) < 30  # a fast one gets nearly all
    assert all(load["ejectedForS"] == 0 for load in loads.values())  # its app is well


@pytest.mark.parametrize("client", ["portable", "native"])
async def test_connections_of_one_caller_are_limited(engine: str, client: str, mint: Mint) -> None:
    gate = connections_gate("peer")
    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        node.engine.set_gate(gate, EachGate(limit=1))
        port = await node.listen(always(plan()), name="peer", tls="mesh")
        async with dial(port, tls=mint.client_context("one")) as first:
            assert (await first.whole(await first.request(b"/echo"))).status == 200
            async with dial(port, tls=mint.client_context("two")) as other:
                assert (await other.whole(await other.request(b"/echo"))).status == 200
            async with running(client) as front:
                front.engine.set_identity(mint.identity("one"))
                front.cluster("app", port, wire="postern", tls="mesh")
                at = await front.listen(always(plan(expect=frozenset({spiffe("callee")}))))
                async with connect(at) as caller:
                    refused = await caller.request("GET", "/")
                outcome = await front.seen.outcome()
            await node.seen.until(lambda: bool(node.seen.refused_peers))
            assert (await first.whole(await first.request(b"/echo"))).status == 200
        await node.seen.until(lambda: node.seen.open == 0)
        async with dial(port, tls=mint.client_context("one")) as again:
            assert (await again.whole(await again.request(b"/echo"))).status == 200
        seen = state(node, gate)
    assert (refused.status, outcome.cause) == (502, Cause.CONNECT)
    assert node.seen.refused_peers[0][:2] == ("too-many", f"{spiffe('one')} has as many as it may (limit 1)")
    assert (seen.inside, set(seen.refused)) == (1, {"connections"})


async def test_gates_of_attempts_hear_a_refusal_of_the_next_gate(engine: str) -> None:
    route = Route(cluster="app", edits=EDITS, gates=("limit", "throttle"))
    async with (
        http_app() as app,
        leading(engine, "one", app, routes=(route,)) as way,
        connect(way.port) as caller,
    ):
        way.front.engine.set_gate("limit", AdaptiveGate())
        way.front.engine.set_gate("throttle", RateGate(per_s=0.001, burst=1))
        statuses = [(await caller.request("GET", "/")).status for _ in range(2)]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 2)
        left = state(way.front, "limit").left
    assert (statuses, left) == ([200, 429], {"": 1, "rate-limited": 1})


async def test_caller_that_may_have_no_more_connections_goes_on_with_those_it_has(
    engine: str, mint: Mint
) -> None:
    app = App()
    async with raw_app(app) as port, running(engine) as node, running(engine) as front:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", port)
        peer = await node.listen(always(plan()), name="peer", tls="mesh")
        front.engine.set_identity(mint.identity("one"))
        front.cluster("app", peer, wire="postern", tls="mesh")
        at = await front.listen(always(plan(expect=frozenset({spiffe("callee")}))))
        async with dial(at) as caller:
            streams = [await caller.request()]
            await app.begun.acquire()
            node.engine.set_gate(connections_gate("peer"), EachGate(limit=0))  # it keeps what it has
            streams += [await caller.request() for _ in range(90)]
            for _ in range(90):
                await app.begun.acquire()
            await front.seen.until(lambda: bool(front.seen.upstream_failures))
            app.go.set()
            statuses = {(await caller.whole(stream)).status for stream in streams}
    assert statuses == {200}
    assert 1 <= len(front.seen.upstream_failures) < 10  # not one for each call beyond the first 64


async def streaming(peer: FramePeer) -> None:
    """An app that begins each answer at once, and ends it with the request."""
    begun: set[int] = set()
    while (got := await peer.read()) is not None:
        if got.kind not in (Kind.HEADERS, Kind.DATA):
            continue
        if got.stream not in begun:
            begun.add(got.stream)
            await peer.send(peer.head(got.stream, ((b":status", b"200"),)))
        if peer.message(got.stream).ended:
            await peer.send(frame(Kind.DATA, END_STREAM, got.stream))


@pytest.mark.parametrize("level", ["call", "attempt"])
async def test_stream_is_inside_an_adaptive_gate_and_its_length_is_no_latency(
    engine: str, level: str
) -> None:
    async with (
        serving(streaming) as port,
        leading(engine, "one", port, wire="h2c", **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", AdaptiveGate())
        while state(way.front).limit == 3:  # until it has measured
            assert (await caller.whole(await caller.request())).status == 200
        for _ in range(5):
            streams = [await caller.request(end=False) for _ in range(3)]
            for stream in streams:
                await caller.headed(stream)
            async with asyncio.timeout(DEADLINE_S):
                while state(way.front).inside != 3:  # noqa: ASYNC110 - the engine has no event for who leaves
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.15)  # how long they are, more than a turn of the gate
            for stream in streams:
                await caller.send(frame(Kind.DATA, END_STREAM, stream))
                await caller.whole(stream)
        # 10, or what one turn makes of it where a quick call of the first ones was slow; 5 turns that count streams make 5.
        assert (state(way.front).limit or 0) >= 8
