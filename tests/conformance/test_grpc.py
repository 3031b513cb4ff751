"""gRPC between grpcio's own client and server, through one engine and through two."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from proxy.contract.plan import Cause, Edit, Op, Route
from tests.conformance.apps import grpc_app
from tests.conformance.frames import Code, FramePeer, Kind, dial, serving
from tests.conformance.harness import EDITS, Way, always, leading, plan
from tests.support.echo_client import EchoClient
from tests.support.proto.echo_pb2 import EchoRequest

GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


@asynccontextmanager
async def echoing(
    engine: str, hops: str, *, metadata: tuple[tuple[str, str | bytes], ...] = (), **fields: Any
) -> AsyncIterator[tuple[EchoClient, Way]]:
    """A grpcio client, a way, a grpcio server."""
    async with (
        grpc_app() as app,
        leading(engine, hops, app, wire="h2c", **fields) as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        yield EchoClient(channel, metadata=metadata), way


async def test_unary_call_carries_metadata_and_trailers(engine: str, hops: str) -> None:
    sent: tuple[tuple[str, str | bytes], ...] = (
        ("x-plain", "a, b"),
        ("x-bin", b"\x00\xff"),
        ("x-plain", "c"),
    )
    async with echoing(engine, hops, metadata=sent) as (client, way):
        call = client.unary(EchoRequest(message="hi"))
        reply = await call
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        outcome = await way.front.seen.outcome()
    got = [(m.name, m.value) for m in reply.metadata]
    assert reply.message == "hi"
    assert [value for name, value in got if name == "x-plain"] == [b"a, b", b"c"]
    assert (b"\x00\xff") in [value for name, value in got if name == "x-bin"]
    assert ("x-app", "app") in list(initial)
    assert dict(list(trailing))["x-trailer-bin"] == b"\x00\x01"
    assert (outcome.grpc_code, outcome.head.protocol, outcome.cause) == (0, "grpc", None)


async def test_client_streaming_call_joins_all_messages(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, _):
        reply = await client.client_stream([EchoRequest(message=str(n)) for n in range(100)])
    assert (reply.message, reply.number) == (" ".join(map(str, range(100))), 100)


async def test_server_streaming_call_yields_every_message(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, _):
        numbers = [reply.number async for reply in client.server_stream(EchoRequest(count=100, padding=1000))]
    assert numbers == list(range(100))


async def test_bidi_call_answers_each_message_before_the_next(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, _):
        call = client.bidi()
        for number in range(10):
            await call.write(EchoRequest(message=str(number)))
            assert (await call.read()).message == str(number)
        await call.done_writing()
        end: Any = grpc.aio
        assert await call.read() is end.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_error_keeps_code_message_and_details(engine: str, hops: str) -> None:
    request = EchoRequest(code=9, message="no: ä %", details=b"\x01\xff\x00")
    async with echoing(engine, hops) as (client, way):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(request, method="Fail")
        outcome = await way.front.seen.outcome()
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "no: ä %")
    assert dict(list(error.trailing_metadata()))["grpc-status-details-bin"] == b"\x01\xff\x00"
    assert (outcome.grpc_code, outcome.cause) == (9, None)


async def test_unknown_method_is_the_apps_unimplemented(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(), method="Nothing")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_deadline_travels_and_shrinks(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, _):
        reply = await client.unary(EchoRequest(), timeout_s=30.0)
        without = await client.unary(EchoRequest(), timeout_s=None)
    assert 25.0 < reply.deadline_s < 30.2  # gRPC's client rounds what it asks for up to three digits
    assert without.deadline_s == -1.0


async def test_plan_timeout_becomes_the_apps_deadline(engine: str) -> None:
    async with echoing(engine, "one", total_s=20.0) as (client, _):
        reply = await client.unary(EchoRequest(), timeout_s=60.0)
    assert 15.0 < reply.deadline_s <= 20.0


async def test_deadline_fires_and_cancels_the_app(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, way):
        deadline_s, probe = 0.1, await client.probe()
        while "Slow" not in probe.calls:  # a busy machine may need longer to get to the app
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.unary(EchoRequest(delay_s=30.0), method="Slow", timeout_s=deadline_s)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            deadline_s *= 2
            probe = await client.probe()
        probe = await client.probe(cancellations=1, wait_s=10.0)
        await way.back.seen.until(lambda: way.back.engine.stats().calls_in_flight == 0)
    assert probe.cancelled["Slow"] == 1


async def test_deadline_of_a_caller_that_does_not_watch_it_is_kept_by_the_engine(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        await peer.respond(await peer.next_request())
        await peer.next_request()
        resets.append((await peer.until(lambda f: f.kind == Kind.RST_STREAM)).code)
        cancelled.set()

    resets: list[int] = []
    cancelled = asyncio.Event()
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        await caller.whole(await caller.request())  # connects to the app, which may take longer than 50 ms
        headers = (*GRPC, (b"grpc-timeout", b"50m"))
        message = await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=headers, body=b""))
        outcome = await way.front.seen.outcome(1)
        async with asyncio.timeout(30.0):
            await cancelled.wait()
    assert (message.status, message.get(b"grpc-status"), message.get(b"postern-error")) == (
        200,
        b"4",
        b"timeout",
    )
    assert (outcome.cause, resets) == (Cause.TIMEOUT, [Code.CANCEL])


async def test_cancelled_stream_is_cancelled_at_the_app_within_a_second(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, way):
        call = client.server_stream(EchoRequest(count=1000, delay_s=0.01))
        await call.read()
        call.cancel()
        probe = await client.probe(cancellations=1, wait_s=1.0)
        outcome = await way.front.seen.outcome()
    assert probe.cancelled == {"ServerStream": 1}
    assert outcome.cause is Cause.CALLER_LEFT


async def test_cancelled_unary_call_is_reset_at_the_app(engine: str, hops: str) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def app(peer: FramePeer) -> None:
        await peer.next_request()
        begun.set()
        await peer.until(lambda f: f.kind == Kind.RST_STREAM and f.code == Code.CANCEL)
        cancelled.set()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel:
            call = EchoClient(channel).unary(EchoRequest())
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(_ends(call))
                await begun.wait()
                call.cancel()
                async with asyncio.timeout(30.0):
                    await cancelled.wait()
                await waiting
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT


async def _ends(call: Any) -> None:
    with suppress(asyncio.CancelledError):
        await call


async def test_channel_that_closes_cancels_its_calls(engine: str, hops: str) -> None:
    async with grpc_app() as app, leading(engine, hops, app, wire="h2c") as way:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel:
            call = EchoClient(channel).server_stream(EchoRequest(count=1000, delay_s=0.01))
            await call.read()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel:
            probe = await EchoClient(channel).probe(cancellations=1, wait_s=1.0)
    assert probe.cancelled == {"ServerStream": 1}


@pytest.mark.parametrize("code", [Code.INTERNAL_ERROR, Code.CANCEL])
async def test_reset_of_the_app_mid_stream_ends_the_call_in_error(engine: str, hops: str, code: int) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, headers=GRPC[:1], body=b"\x00\x00\x00\x00\x01x", end=False)
        await peer.settled()
        await peer.send(_reset(stream, code))
        await peer.to_the_end()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b""))
        outcome = await way.front.seen.outcome()
    assert not message.ended
    assert message.reset not in (None, Code.NO_ERROR)
    assert outcome.cause is Cause.RESET_LATE


def _reset(stream: int, code: int) -> bytes:
    return b"\x00\x00\x04" + bytes((Kind.RST_STREAM, 0)) + stream.to_bytes(4, "big") + code.to_bytes(4, "big")


async def test_app_that_ends_without_a_status_is_passed_on_as_it_is(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, headers=GRPC[:1], body=b"\x00\x00\x00\x00\x00")
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b""))
        outcome = await way.front.seen.outcome()
    assert (message.status, message.ended, outcome.grpc_code) == (200, True, None)


@pytest.mark.parametrize(
    ("status", "content_type", "is_gone"),
    [
        (200, b"application/grpc", True),
        (415, b"application/grpc+proto", True),
        (200, b"application/grpc-web", False),
        (415, b"text/plain", False),
    ],
)
@pytest.mark.parametrize("end", [True, False], ids=["head-alone", "with-body"])
async def test_answer_in_grpc_to_an_http_call_is_unsupported_where_the_plan_says_so(
    engine: str, status: int, content_type: bytes, is_gone: bool, end: bool
) -> None:
    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            fields = ((b"content-type", content_type), (b"grpc-status", b"12"))
            await peer.respond(stream, status, headers=fields, body=None if end else b"body")

    http_only = plan(routes=(Route(cluster="app", edits=(*EDITS, Edit(op=Op.HTTP_ONLY))),))
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", decide=always(http_only)) as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request(b"/echo"))
        outcome = await way.front.seen.outcome()
    assert (message.status, outcome.cause) == ((501, Cause.UNSUPPORTED) if is_gone else (status, None))
    assert (b"answered in gRPC, with HTTP %d" % status in bytes(message.body)) is is_gone


async def test_large_message_arrives_whole(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, _):
        reply = await client.unary(EchoRequest(padding=3 << 20))
    assert len(reply.padding) == 3 << 20


async def test_hundred_calls_at_once_all_answer(engine: str, hops: str) -> None:
    async with echoing(engine, hops) as (client, way):
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(_message(client, n)) for n in range(100)]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 100)
    assert [call.result() for call in calls] == [str(n) for n in range(100)]


async def _message(client: EchoClient, number: int) -> str:
    reply = await client.unary(EchoRequest(message=str(number)))
    return str(reply.message)
