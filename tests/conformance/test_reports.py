"""Reports of calls: one by one where the observer asks for that, added up where it may be, and what an attempt's record says."""

import asyncio

import pytest
from msgspec.structs import replace

from proxy.contract.engine import Measures
from tests.conformance.apps import raw_app
from tests.conformance.harness import leading
from tests.conformance.test_attempts import OK, Answering
from tests.support.http_client import connect

FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"
MEASURES = Measures(duration_s=(1.0,), latency_ms=(1.0,), size_bytes=(1.0,))


async def test_attempt_says_when_it_was_sent(engine: str) -> None:
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")
        (attempt,) = (await way.front.seen.outcome()).attempts
    assert 0 < attempt.started_ns <= attempt.sent_ns <= attempt.head_ns


async def test_attempt_without_a_connection_was_not_sent(engine: str) -> None:
    async with leading(engine, "one", 1) as way, connect(way.port) as caller:
        await caller.request("GET", "/")
        (attempt,) = (await way.front.seen.outcome()).attempts
    assert (attempt.sent_ns, attempt.head_ns) == (0, 0)


@pytest.mark.parametrize("verb", ["GET", "HEAD"])
async def test_answer_of_the_proxys_own_counts_the_bytes_that_it_has(engine: str, verb: str) -> None:
    async with leading(engine, "one", 1) as way, connect(way.port) as caller:
        answer = await caller.request(verb, "/")
        outcome = await way.front.seen.outcome()
    assert (outcome.down_bytes, outcome.status) == (len(answer.body), answer.status)
    assert bool(answer.body) is (verb == "GET")


async def test_every_call_is_reported_by_itself_from_when_that_is_asked_until_it_is_not(engine: str) -> None:
    """An engine may add calls up, and the portable one never does."""
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        seen = way.front.seen

        async def call_until_reported(tallies: bool) -> None:
            before = seen.tallied if tallies else len(seen.outcomes)
            while (seen.tallied if tallies else len(seen.outcomes)) == before:
                await caller.request("GET", "/")

        for is_added_up in (True, False, True):
            seen.measures = MEASURES if is_added_up else None
            await call_until_reported(is_added_up and engine == "native")
        for outcome in seen.outcomes:
            assert (outcome.status, outcome.head.get(b"host") is None) == (200, True)


@pytest.mark.parametrize("response", [FAILED, OK])
async def test_call_that_its_app_failed_or_that_was_slow_is_told_whole_beside_the_sums(
    engine: str, response: bytes
) -> None:
    """The portable engine tells of each call."""
    async with (
        raw_app(Answering([response])) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        seen = way.front.seen
        seen.measures = replace(MEASURES, slow_ns=0 if response is FAILED else 1)
        async with asyncio.timeout(10.0):
            while not (seen.kept if engine == "native" else seen.outcomes):
                await caller.request("GET", "/")
        outcome = (seen.kept or seen.outcomes)[0]
    assert (outcome.status, len(outcome.attempts)) == (500 if response is FAILED else 200, 1)
