"""Faults that are injected on purpose: within an attempt, as failures of its endpoint, under its time limit and its retries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from proxy.contract.gates import FaultGate
from proxy.contract.plan import Cause, Route
from tests.conformance.apps import grpc_app, http_app, raw_app
from tests.conformance.harness import DEADLINE_S, EDITS, Way, leading, retry
from tests.support.echo_client import EchoClient
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import Connection, connect
from tests.support.http_wire import read_head
from tests.support.proto.echo_pb2 import EchoRequest

BODY = b"0123456789" * 100


@asynccontextmanager
async def harmed(
    engine: str, app: int, *faults: FaultGate, hops: str = "one", wire: Any = "http1", **fields: Any
) -> AsyncIterator[Way]:
    """A way whose attempts pass these faults."""
    names = tuple(f"fault:app:{one.name}" for one in faults)
    routes = (Route(cluster="app", edits=EDITS, gates=names),)
    async with leading(engine, hops, app, wire=wire, routes=routes, **fields) as way:
        for name, one in zip(names, faults, strict=True):
            way.front.engine.set_gate(name, one)
        yield way


async def serve_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app that answers each request with the same body."""
    while await read_head(reader):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))


def abort(status: int = 503, code: int = 14, **fields: Any) -> FaultGate:
    """A fault that answers."""
    return FaultGate(name="broken", kind="abort", status=status, grpc_code=code, **fields)


async def test_aborted_attempt_is_answered_in_place_of_the_callee(engine: str) -> None:
    async with http_app() as app, harmed(engine, app, abort(418)) as way, connect(way.port) as caller:
        answers = [await caller.request("POST", "/echo", body=b"x" * 100) for _ in range(2)]
        outcome = await way.front.seen.outcome()
        state = way.front.engine.stats().gates["fault:app:broken"]
    assert [(one.status, one.get("postern-fault"), one.body) for one in answers] == [(418, "broken", b"")] * 2
    assert [(one.fault, one.status, one.cause) for one in outcome.attempts] == [("broken", 418, None)]
    assert outcome.attempts[0].endpoint == f"127.0.0.1:{app}"
    assert state.refused == {"abort": 2}


async def test_aborted_grpc_call_ends_with_its_code(engine: str) -> None:
    async with (
        grpc_app() as app,
        harmed(engine, app, abort(code=9), wire="h2c") as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoClient(channel).unary(EchoRequest(message="hi"))
    pairs: Any = (*(caught.value.initial_metadata() or ()), *(caught.value.trailing_metadata() or ()))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "injected by the fault broken"
    assert dict(pairs)["postern-fault"] == "broken"


async def test_retry_goes_past_a_fault_that_ends(engine: str) -> None:
    once_more = retry(4, http_codes=None)
    async with (
        http_app() as app,
        harmed(engine, app, abort(500, times=2), retries=(once_more,)) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("POST", "/echo", body=BODY)
        outcome = await way.front.seen.outcome()
    assert (answer.status, answer.get("postern-fault")) == (200, "")
    assert BODY.decode() in answer.body.decode()
    assert [(one.status, one.fault) for one in outcome.attempts] == [
        (500, "broken"),
        (500, "broken"),
        (200, ""),
    ]


@pytest.mark.parametrize(("kind", "cause"), [("unavailable", Cause.CONNECT), ("reset", Cause.RESET_EARLY)])
async def test_callee_that_is_not_there_fails_the_attempt(engine: str, kind: Any, cause: Cause) -> None:
    async with (
        http_app() as app,
        harmed(engine, app, FaultGate(name="gone", kind=kind, times=3), retries=(retry(2, cause),)) as way,
        connect(way.port) as caller,
    ):
        failed = await caller.request("GET", "/")
        mended = await caller.request("GET", "/")
        first, second = await way.front.seen.outcome(), await way.front.seen.outcome(1)
    assert (failed.status, failed.get("postern-error"), failed.get("postern-fault")) == (
        failed.status,
        cause.value,
        "gone",
    )
    assert [one.cause for one in first.attempts] == [cause] * 2
    assert (mended.status, mended.get("postern-fault")) == (200, "")
    assert [one.cause for one in second.attempts] == [cause, None]


async def test_delay_is_part_of_the_attempts_time(engine: str) -> None:
    slow = FaultGate(name="slow", kind="delay", least_s=DEADLINE_S * 2, most_s=DEADLINE_S * 2, times=1)
    async with (
        http_app() as app,
        harmed(engine, app, slow, attempt_s=0.2, retries=(retry(2, Cause.TIMEOUT),)) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
        state = way.front.engine.stats().gates["fault:app:slow"]
    assert (answer.status, answer.get("postern-fault")) == (200, "")
    assert [(one.cause, one.fault) for one in outcome.attempts] == [(Cause.TIMEOUT, "slow"), (None, "")]
    assert (state.inside, state.left) == (0, {"timeout": 1, "": 1})


async def test_answer_for_a_delay_that_took_all_the_time_names_it(engine: str) -> None:
    slow = FaultGate(name="slow", kind="delay", least_s=DEADLINE_S * 2, most_s=DEADLINE_S * 2)
    async with (
        http_app() as app,
        harmed(engine, app, slow, total_s=0.2) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (answer.get("postern-error"), answer.get("postern-fault")) == ("timeout", "slow")
    assert [one.fault for one in outcome.attempts] == ["slow"]


async def test_faults_add_up(engine: str) -> None:
    slow = FaultGate(name="slow", kind="delay", least_s=0.05, most_s=0.06)
    async with http_app() as app, harmed(engine, app, slow, abort()) as way, connect(way.port) as caller:
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (answer.status, answer.get("postern-fault")) == (503, "slow,broken")
    assert outcome.ended_ns - outcome.started_ns >= 50_000_000


async def cut_off(caller: Connection) -> bool:
    """Whether an answer breaks off visibly."""
    try:
        await caller.request("GET", "/")
    except (OSError, HttpSyntaxError, asyncio.IncompleteReadError):
        return True
    return False


@pytest.mark.parametrize(
    ("fault", "came"),
    [
        (FaultGate(name="cut", kind="reset-late"), 0),
        (FaultGate(name="cut", kind="truncate", bytes=0), 0),
        (FaultGate(name="cut", kind="truncate", bytes=7), 7),
    ],
)
async def test_answer_breaks_off_visibly(engine: str, fault: FaultGate, came: int) -> None:
    async with raw_app(serve_body) as app, harmed(engine, app, fault) as way:
        async with connect(way.port) as caller:
            assert await cut_off(caller)
        outcome = await way.front.seen.outcome()
    assert (outcome.status, outcome.cause, outcome.down_bytes) == (200, Cause.RESET_LATE, came)
    assert [(one.fault, one.cause) for one in outcome.attempts] == [("cut", Cause.RESET_LATE)]


async def test_answer_that_is_no_longer_than_that_is_whole(engine: str) -> None:
    fault = FaultGate(name="cut", kind="truncate", bytes=len(BODY))
    async with (
        raw_app(serve_body) as app,
        harmed(engine, app, fault) as way,
        connect(way.port) as caller,
    ):
        answers = [await caller.request("GET", "/") for _ in range(2)]
    assert [(one.body, one.get("postern-fault")) for one in answers] == [(BODY, "cut")] * 2


async def test_answer_comes_as_slowly_as_it_says(engine: str) -> None:
    fault = FaultGate(name="thin", kind="bandwidth", bytes=2_000)
    async with (
        raw_app(serve_body) as app,
        harmed(engine, app, fault) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (answer.body, answer.get("postern-fault")) == (BODY, "thin")
    assert (
        outcome.ended_ns - outcome.head_ns >= 0.4e9
    )  # of half a second, of which the last piece waits for nothing


async def test_caller_that_leaves_ends_a_slow_answer(engine: str) -> None:
    fault = FaultGate(name="thin", kind="bandwidth", bytes=1)
    async with raw_app(serve_body) as app, harmed(engine, app, fault) as way:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await read_head(reader)
        writer.close()
        outcome = await way.front.seen.outcome()
        state = way.front.engine.stats().gates["fault:app:thin"]
    assert (outcome.cause, state.inside) == (Cause.CALLER_LEFT, 0)


async def test_stream_of_grpc_breaks_off(engine: str) -> None:
    fault = FaultGate(name="cut", kind="truncate", bytes=3_000)
    async with (
        grpc_app() as app,
        harmed(engine, app, fault, wire="h2c") as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        stream = EchoClient(channel).server_stream(EchoRequest(count=50, padding=1_000))
        with pytest.raises(grpc.aio.AioRpcError):
            assert [reply async for reply in stream]
        outcome = await way.front.seen.outcome()
    assert (outcome.cause, outcome.down_bytes) == (Cause.RESET_LATE, 3_000)
