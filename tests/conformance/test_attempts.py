"""Attempts: time limits, retries, replayed bodies, other endpoints at once."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.contract.engine import Cluster, Upstream
from proxy.contract.plan import Cause
from tests.conformance.apps import raw_app
from tests.conformance.frames import Code, FramePeer, dial, goaway, reset, serving
from tests.conformance.harness import DEADLINE_S, PINGLESS, Node, always, leading, plan, retry, running
from tests.support.http_client import connect
from tests.support.http_wire import Head, read_body, read_head
from tests.support.ports import free_ports

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"


@dataclass
class Answering:
    """An HTTP/1.1 app that gives its answers in turn (the last one for ever) and keeps what it was asked. b"" hangs up."""

    answers: list[bytes]
    bodies: list[bytes] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await read_head(reader)) is not None:
            self.heads.append(head)
            self.bodies.append(b"".join([part async for part in read_body(reader, head, [])]))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if not answer:
                return
            writer.write(answer)


@dataclass
class Never:
    """An app that reads and never answers."""

    calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls.release()
        await reader.read()

    async def called(self, times: int) -> None:
        """Wait for so many calls: this loop may be behind an engine with threads of its own."""
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(times):
                await self.calls.acquire()


async def test_attempt_limit_without_retry_is_a_504(engine: str) -> None:
    async with (
        raw_app(Never()) as port,
        leading(engine, "one", port, attempt_s=0.05) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (response.status, response.get("postern-error"), outcome.cause) == (504, "timeout", Cause.TIMEOUT)
    assert [attempt.cause for attempt in outcome.attempts] == [Cause.TIMEOUT]


async def test_attempt_limit_with_retry_tries_again(engine: str) -> None:
    app = Never()
    rules = (retry(3, Cause.TIMEOUT),)
    async with raw_app(app) as port, leading(engine, "one", port, attempt_s=0.05, retries=rules) as way:
        async with connect(way.port) as caller:
            response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
        await app.called(3)
    assert (response.status, len(outcome.attempts), app.calls.locked()) == (504, 3, True)


async def test_total_limit_ends_all_attempts(engine: str) -> None:
    app = Never()
    rules = (retry(None, Cause.TIMEOUT),)
    fields: dict[str, Any] = {"attempt_s": 0.25, "total_s": 2.5, "retries": rules}
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **fields) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
        await app.called(2)
    assert (response.status, outcome.cause) == (504, Cause.TIMEOUT)
    assert 1 < len(outcome.attempts) <= 10


async def test_attempt_limit_bounds_an_answer_up_to_its_end(engine: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    async with (
        raw_app(app) as port,
        leading(engine, "one", port, attempt_s=0.5) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/")
        head = await caller.read_response_head()
        rest = await caller.reader.read()
        outcome = await way.front.seen.outcome()
    assert (head.second, rest, outcome.cause) == ("200", b"half", Cause.TIMEOUT)


async def test_status_that_the_rule_covers_is_retried(engine: str, hops: str) -> None:
    app = Answering([BUSY, BUSY, OK])
    rules = (retry(3, http_codes=frozenset({503})),)
    async with (
        raw_app(app) as port,
        leading(engine, hops, port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("POST", "/", body=b"replay me")
        outcome = await way.front.seen.outcome()
    assert (response.status, response.body) == (200, b"ok")
    assert app.bodies == [b"replay me"] * 3
    assert [attempt.status for attempt in outcome.attempts] == [503, 503, 200]
    assert outcome.cause is None


async def test_status_that_no_rule_covers_passes(engine: str) -> None:
    app = Answering([BUSY, OK])
    rules = (retry(3, http_codes=frozenset({500})),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
    assert (response.status, response.body, len(app.heads)) == (503, b"busy", 1)


async def test_last_failing_answer_passes_when_attempts_are_spent(engine: str) -> None:
    app = Answering([BUSY])
    rules = (retry(3, http_codes=None),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
    assert (response.status, response.body, len(app.heads)) == (503, b"busy", 3)


async def test_body_larger_than_replay_bytes_is_sent_once(engine: str) -> None:
    app = Answering([BUSY, OK])
    fields: dict[str, Any] = {"retries": (retry(3, http_codes=None),), "replay_bytes": 10}
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **fields) as way,
        connect(way.port) as caller,
    ):
        small = await caller.request("POST", "/", body=b"0123456789")
        app.answers[:] = [BUSY, OK]
        large = await caller.request("POST", "/", body=b"0123456789!")
    assert (small.status, large.status) == (200, 503)
    assert app.bodies == [b"0123456789", b"0123456789", b"0123456789!"]


async def test_body_beyond_the_room_of_all_calls_is_sent_once(engine: str) -> None:
    app = Answering([BUSY, OK])
    limits = replace(PINGLESS, replay_bytes=10)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, limits=limits, retries=(retry(3, http_codes=None),)) as way,
        connect(way.port) as caller,
    ):
        fits = await caller.request("POST", "/", body=b"0123456789")
        app.answers[:] = [BUSY, OK]
        beyond = await caller.request("POST", "/", body=b"0123456789!")
        app.answers[:] = [BUSY, OK]
        again = await caller.request("POST", "/", body=b"9876543210")  # what was held is given back
    assert (fits.status, beyond.status, again.status) == (200, 503, 200)


async def test_chunked_body_within_replay_bytes_is_replayed(engine: str, hops: str) -> None:
    app = Answering([BUSY, OK])
    rules = (retry(3, http_codes=None),)
    async with (
        raw_app(app) as port,
        leading(engine, hops, port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("POST", "/", chunks=[b"ab", b"cd"])
    assert (response.status, app.bodies) == (200, [b"abcd", b"abcd"])


async def test_answer_under_way_is_never_retried(engine: str) -> None:
    app = Answering([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b""])
    app.answers = [app.answers[0]]
    rules = (retry(5, Cause.RESET_LATE, Cause.RESET_EARLY, http_codes=None),)
    calls = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with (
        raw_app(once) as port,
        leading(engine, "one", port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/")
        rest = await caller.reader.read()
    assert rest.endswith(b"\r\n\r\nhalf")
    assert calls == 1


async def test_call_cut_before_an_answer_is_retried_only_by_rule(engine: str) -> None:
    without, covered = Answering([b"", OK]), Answering([b"", OK])
    async with raw_app(without) as port, leading(engine, "one", port) as way, connect(way.port) as caller:
        first = await caller.request("GET", "/")
    rules = (retry(2, Cause.RESET_EARLY),)
    async with (
        raw_app(covered) as port,
        leading(engine, "one", port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        second = await caller.request("GET", "/")
    assert (first.status, len(without.heads)) == (502, 1)
    assert (second.status, len(covered.heads)) == (200, 2)


async def test_grpc_status_that_the_rule_covers_is_retried(engine: str, hops: str) -> None:
    codes = [b"14", b"14", b"0"]
    bodies: list[bytes] = []

    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            bodies.append(bytes((await peer.whole(stream)).body))
            code = codes.pop(0)
            head = ((b"content-type", b"application/grpc"),)
            if len(codes) == 1:
                await peer.respond(stream, headers=head, trailers=((b"grpc-status", code),))
            else:
                await peer.respond(stream, headers=(*head, (b"grpc-status", code)))

    rules = (retry(5, grpc_codes=frozenset({14})),)
    headers = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    async with (
        serving(app) as port,
        leading(engine, hops, port, wire="h2c", retries=rules) as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(
            await caller.request(b"/s/M", method=b"POST", headers=headers, body=b"12345")
        )
        outcome = await way.front.seen.outcome()
    assert message.get(b"grpc-status") == b"0"
    assert [attempt.grpc_code for attempt in outcome.attempts] == [14, 14, 0]
    assert bodies == [b"12345"] * 3


async def two_endpoints(node: Node, first: int, second: int, **fields: Any) -> int:
    """A listener over two endpoints."""
    node.cluster("app", first, second, wire="h2c" if fields.pop("h2c", False) else "http1")
    return await node.listen(always(plan(**fields)))


async def test_refused_connection_tries_the_other_endpoint_at_once(engine: str) -> None:
    (dead,) = free_ports(1)
    async with raw_app(Answering([OK])) as port, running(engine) as node:
        entry = await two_endpoints(node, dead, port)
        async with connect(entry) as caller:
            statuses = [(await caller.request("POST", "/", body=b"x")).status for _ in range(10)]
    assert statuses == [200] * 10
    assert (
        any(len(outcome.attempts) == 2 for outcome in node.seen.outcomes) or not node.seen.upstream_failures
    )


async def test_no_endpoint_accepts_is_a_502_with_the_reason(engine: str) -> None:
    first, second = free_ports(2)
    async with running(engine) as node:
        entry = await two_endpoints(node, first, second)
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
        outcome = await node.seen.outcome()
    assert (response.status, response.get("postern-error")) == (502, "connect")
    assert b"refused" in response.body or b"failed" in response.body
    assert sorted(a.endpoint for a in outcome.attempts) == sorted(f"127.0.0.1:{p}" for p in (first, second))


async def test_unknown_cluster_is_a_503_that_says_what_was_looked_for(engine: str) -> None:
    async with running(engine) as node:
        entry = await node.listen(always(plan("nobody")))
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (503, "no-endpoint")
    assert b"looked for nobody" in response.body


@pytest.mark.parametrize(
    "address", ["127.0.0.1:99999", "127.0.0.1:x", "no-such-host.invalid:80", "x" * 300 + ":80", ""]
)
async def test_senseless_address_fails_its_call_and_leaves_the_engine_alive(
    engine: str, address: str
) -> None:
    async with raw_app(Answering([OK])) as port, running(engine) as node:
        node.engine.set_cluster(
            Cluster(key="bad", wire="http1", tls=None, upstreams=(Upstream(address=address),))
        )
        node.cluster("app", port)
        bad = await node.listen(always(plan("bad")), name="bad")
        good = await node.listen(always(plan()), name="good")
        async with connect(bad) as caller:
            refused = await caller.request("GET", "/")
        async with connect(good) as caller:
            fine = await caller.request("GET", "/")
    assert (refused.status, fine.status) == (502, 200)


async def test_stream_refused_by_the_app_goes_to_the_other_endpoint(engine: str) -> None:
    async def refusing(peer: FramePeer) -> None:
        while True:
            await peer.send(reset(await peer.next_request(), Code.REFUSED_STREAM))

    async def fine(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            await peer.respond(stream, body=bytes((await peer.whole(stream)).body))

    async with serving(refusing) as first, serving(fine) as second, running(engine) as node:
        entry = await two_endpoints(node, first, second, h2c=True)
        async with connect(entry) as caller:
            bodies = [(await caller.request("POST", "/", body=b"x%d" % n)).body for n in range(6)]
    assert bodies == [b"x%d" % n for n in range(6)]


async def test_call_above_the_last_stream_of_a_goaway_is_replayed_elsewhere(engine: str) -> None:
    async def leaving(peer: FramePeer) -> None:
        await peer.next_request()
        left.set()
        await peer.send(goaway(0))
        await peer.to_the_end()

    async def fine(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            await peer.respond(stream, body=bytes((await peer.whole(stream)).body))

    left = asyncio.Event()
    async with serving(leaving) as first, serving(fine) as second, running(engine) as node:
        entry = await two_endpoints(node, first, second, h2c=True)
        async with connect(entry) as caller:
            for number in range(40):
                response = await caller.request("POST", "/", body=b"%d" % number)
                assert (response.status, response.body) == (200, b"%d" % number)
                if left.is_set():
                    break
    assert left.is_set()


async def test_pause_of_a_rule_is_kept_between_attempts(engine: str) -> None:
    app = Answering([BUSY, OK])
    rules = (retry(2, http_codes=None, delay_s=0.2),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    first, second = outcome.attempts
    assert response.status == 200
    assert 0.19e9 <= second.started_ns - first.ended_ns < 20e9


async def test_pause_that_would_pass_the_deadline_is_not_begun(engine: str) -> None:
    app = Answering([BUSY, OK])
    rules = (retry(2, http_codes=None, delay_s=30.0),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules, total_s=5.0) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
    assert (response.status, len(app.heads)) == (503, 1)


async def test_attempts_count_towards_the_time_that_a_rule_has(engine: str) -> None:
    app = Never()
    rules = (retry(None, Cause.TIMEOUT, within_s=2.5),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules, attempt_s=0.3) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert response.status == 504
    assert 1 < len(outcome.attempts) <= 9  # they begin every 0.3 s, or later


async def test_codes_of_a_rule_are_of_answers_and_not_of_attempts_that_got_none(engine: str) -> None:
    """A timeout carries no code, so `matching` leaves it to be tried again; the code 4 of an answer is filtered by it."""
    silent, answering = Never(), Answering([BUSY])
    rules = (retry(3, Cause.TIMEOUT, http_codes=frozenset({500}), grpc_codes=frozenset({14})),)
    fields: dict[str, Any] = {"retries": rules, "attempt_s": 0.05}
    async with raw_app(silent) as port, leading(engine, "one", port, **fields) as way:
        async with connect(way.port) as caller:
            assert (await caller.request("GET", "/")).status == 504
        assert len((await way.front.seen.outcome()).attempts) == 3
    async with raw_app(answering) as port, leading(engine, "one", port, retries=rules) as way:
        async with connect(way.port) as caller:
            assert (await caller.request("GET", "/")).status == 503
        assert len((await way.front.seen.outcome()).attempts) == 1


async def test_each_attempt_is_a_fresh_head(engine: str) -> None:
    app = Answering([BUSY, OK])
    rules = (retry(2, http_codes=None),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/", headers=[("traceparent", "00-bad")])
    assert [head.get_all("traceparent") for head in app.heads] == [app.heads[0].get_all("traceparent")] * 2
