"""What is not retried says why."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.contract.budgets import BudgetUse, RetryShare
from proxy.contract.outcome import NotRetried, Outcome
from proxy.contract.plan import Cause
from tests.conformance.apps import raw_app
from tests.conformance.frames import FramePeer, dial, serving
from tests.conformance.harness import Way, leading, plan, retry
from tests.conformance.test_attempts import BUSY, OK, Answering, Never
from tests.conformance.test_pushback import GRPC, Pushing, busy
from tests.support.http_client import Connection, connect

ANY = retry(3, http_codes=None, grpc_codes=None, heeds_answer=True)
ONCE = retry(1, http_codes=None, grpc_codes=None)
EMPTY = BudgetUse(target="app", rule=RetryShare(ratio=0.0, min_per_s=0.0))


@asynccontextmanager
async def calling(engine: str, app: Any, **fields: Any) -> AsyncIterator[tuple[Way, Connection]]:
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **fields) as way,
        connect(way.port) as caller,
    ):
        yield way, caller


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, NotRetried.NOT_COVERED),
        ({"retries": (retry(3, Cause.CONNECT),)}, NotRetried.NOT_COVERED),
        ({"retries": (ONCE,)}, NotRetried.NO_ATTEMPTS),
        ({"retries": (ANY,), "budget": EMPTY}, NotRetried.BUDGET),
        ({"retries": (retry(3, http_codes=None, delay_s=60.0),), "total_s": 30.0}, NotRetried.DEADLINE),
        ({"retries": (retry(3, http_codes=None, delay_s=60.0, within_s=30.0),)}, NotRetried.TOO_LATE),
    ],
)
async def test_answer_that_fails_the_call_says_why_it_is_the_last(
    engine: str, fields: dict[str, Any], why: NotRetried
) -> None:
    async with calling(engine, Answering([BUSY]), **fields) as (way, caller):
        assert (await caller.request("GET", "/")).status == 503
        outcome = await way.front.seen.outcome()
    assert (outcome.not_retried, len(outcome.attempts)) == (why, 1)


async def test_call_that_goes_well_says_nothing_nor_one_whose_retry_did(engine: str) -> None:
    async with calling(engine, Answering([OK, BUSY, OK]), retries=(ANY,)) as (way, caller):
        for _ in range(2):
            assert (await caller.request("GET", "/")).status == 200
        outcomes = [await way.front.seen.outcome(number) for number in range(2)]
    assert [(len(outcome.attempts), outcome.not_retried) for outcome in outcomes] == [(1, None), (2, None)]


async def test_body_that_is_not_kept_is_the_reason(engine: str) -> None:
    async with calling(engine, Answering([BUSY]), retries=(ANY,), replay_bytes=3) as (way, caller):
        assert (await caller.request("POST", "/", body=b"four")).status == 503
        outcome = await way.front.seen.outcome()
    assert (outcome.not_retried, len(outcome.attempts)) == (NotRetried.BODY, 1)


async def test_body_of_unknown_length_is_the_reason_where_there_is_no_rule_for_it(engine: str) -> None:
    async with calling(engine, Answering([BUSY])) as (way, caller):
        assert (await caller.request("POST", "/", chunks=[b"a"])).status == 503
        assert (await way.front.seen.outcome()).not_retried is NotRetried.STREAMING


async def test_deadline_that_passes_is_the_reason(engine: str) -> None:
    async with calling(engine, Never(), total_s=0.2) as (way, caller):
        assert (await caller.request("GET", "/")).status == 504
        outcome = await way.front.seen.outcome()
    assert (outcome.cause, outcome.not_retried) == (Cause.TIMEOUT, NotRetried.DEADLINE)


async def test_answer_that_asks_for_none_is_the_reason(engine: str) -> None:
    app = Pushing(((b"grpc-retry-pushback-ms", b"-1"),))
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", retries=(ANY,)) as way,
        dial(way.port) as caller,
    ):
        await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b"12345"))
        assert (await way.front.seen.outcome()).not_retried is NotRetried.PUSHBACK


async def test_later_than_the_deadline_is_the_reason(engine: str) -> None:
    async with calling(engine, Answering([busy("30")]), retries=(ANY,), total_s=20.0) as (way, caller):
        assert (await caller.request("GET", "/")).status == 503
        assert (await way.front.seen.outcome()).not_retried is NotRetried.DEADLINE


async def test_answer_that_broke_off_had_begun(engine: str) -> None:
    async def half(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with calling(engine, half, retries=(retry(3, Cause.RESET_LATE),)) as (way, caller):
        await caller.send_head("GET", "/")
        await caller.reader.read()
        assert (await way.front.seen.outcome()).not_retried is NotRetried.BEGUN


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"retries": (ANY,)}, NotRetried.BEGUN),
        ({"retries": (retry(3, grpc_codes=frozenset({13})),)}, NotRetried.NOT_COVERED),
        ({}, NotRetried.NOT_COVERED),
        ({"retries": (ANY,), "replay_bytes": 3}, NotRetried.BODY),
    ],
)
async def test_grpc_call_that_fails_after_a_message(
    engine: str, fields: dict[str, Any], why: NotRetried
) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.whole(stream)
        message = b"" if why is NotRetried.BODY else b"\0\0\0\0\0"
        head = ((b"content-type", b"application/grpc"),)
        await peer.respond(stream, headers=head, body=message, trailers=((b"grpc-status", b"14"),))
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", **fields) as way,
        dial(way.port) as caller,
    ):
        await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b"12345"))
        outcome: Outcome = await way.front.seen.outcome()
    assert (outcome.grpc_code, outcome.not_retried) == (14, why)


async def test_caller_that_left_wanted_no_retry(engine: str) -> None:
    app = Never()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, decide=lambda _: plan(retries=(ANY,))) as way,
    ):
        async with connect(way.port) as caller:
            await caller.send_head("GET", "/")
            await app.called(1)
        outcome = await way.front.seen.outcome()
    assert (outcome.cause, outcome.not_retried) == (Cause.CALLER_LEFT, None)
