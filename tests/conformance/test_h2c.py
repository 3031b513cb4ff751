"""`Upgrade: h2c`: an HTTP/1.1 connection goes on in HTTP/2, with the answer on stream 1. Source: RFC 7540 §3.2."""

import asyncio
import base64
import json
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from tests.conformance.apps import http_app
from tests.conformance.frames import (
    ACK,
    PREFACE,
    Code,
    FramePeer,
    Kind,
    Setting,
    frame,
    reset,
    settings,
    window,
)
from tests.conformance.harness import PINGLESS, leading
from tests.support.http_client import Connection, connect
from tests.support.websocket import new_key

WISHES = {Setting.MAX_CONCURRENT_STREAMS: 100, Setting.INITIAL_WINDOW_SIZE: 1 << 20, Setting.ENABLE_PUSH: 0}


def payload(values: dict[Setting, int] = WISHES) -> str:
    """A value of HTTP2-Settings."""
    return base64.urlsafe_b64encode(settings(values)[9:]).decode().rstrip("=")


def offer(value: str = payload(), upgrade: str = "h2c") -> list[tuple[str, str]]:
    """The fields of an offer."""
    return [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", upgrade), ("HTTP2-Settings", value)]


async def ask(
    caller: Connection,
    target: str = "/echo",
    *,
    method: str = "GET",
    more: Sequence[tuple[str, str]] = (),
    value: str = payload(),
) -> FramePeer:
    """Offer HTTP/2, which is taken; the preface was not sent yet."""
    await caller.send_head(method, target, [*offer(value), *more])
    head = await caller.read_response_head()
    assert (head.second, head.get("upgrade"), head.get("connection")) == ("101", "h2c", "Upgrade")
    return await taken(caller)


async def taken(caller: Connection) -> FramePeer:
    """The connection, from which the server's SETTINGS were read."""
    peer = FramePeer(caller.reader, caller.writer)
    peer.acking = False
    await peer.until(lambda got: got.kind == Kind.SETTINGS and not got.flags & ACK)
    assert peer.new_stream() == 1
    return peer


async def greet(peer: FramePeer, hello: bytes = PREFACE + settings({})) -> None:
    """The client's preface, and what acknowledges the server's SETTINGS."""
    await peer.send(hello, frame(Kind.SETTINGS, ACK))
    peer.acking = True


async def test_request_is_answered_on_stream_1_and_others_follow(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way:
        async with connect(way.port) as caller:
            more = [("X-One", "1"), ("TE", "gzip"), ("Cookie", "a=b")]
            peer = await ask(caller, "/echo?x=y", more=more)
            await greet(peer, peer.hello(client=True))
            first = await peer.whole(1)
            second = await peer.whole(await peer.request(b"/echo", method=b"POST", body=b"x" * 100_000))
        outcome = await way.front.seen.outcome()
    seen = json.loads(first.body)
    names = {name.lower() for name, _ in seen["headers"]}
    assert (first.status, seen["target"], seen["method"]) == (200, "/echo?x=y", "GET")
    assert {"x-one", "cookie"} <= names
    assert not names & {"upgrade", "http2-settings", "te"}
    assert (second.status, json.loads(second.body)["body"]) == (200, "x" * 100_000)
    assert (outcome.head.protocol, outcome.cause) == ("http2", None)


async def test_answer_does_not_wait_for_the_preface(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        peer = await ask(caller, "/status?code=204", method="HEAD")
        assert (await peer.whole(1)).status == 204
        await greet(peer, peer.hello(client=True))
        await peer.settled()


async def test_answer_gets_not_far_ahead_of_the_preface(engine: str, hops: str) -> None:
    """curl copies what comes with the 101 into 32 KiB, and gives up where it is more."""
    async with http_app() as app, leading(engine, hops, app) as way:
        async with connect(way.port) as caller, connect(way.port) as other:
            await caller.send_head("GET", "/bytes?n=200000", offer())
            for _ in range(20):  # there was time to send more
                assert (await other.request("GET", "/echo")).status == 200
            ahead = await caller.reader.read(1 << 20)
            assert len(ahead) < 32_768
            await caller.send(PREFACE + settings({}) + window(0, 1 << 20))
            read = len(ahead)
            while read < 200_000:
                read += len(await caller.reader.read(1 << 20))
        seen = way.front.seen
        await seen.until(lambda: len(seen.outcomes) == 21)
    assert max(outcome.down_bytes for outcome in seen.outcomes) == 200_000
    assert {(outcome.status, outcome.cause) for outcome in seen.outcomes} == {(200, None)}


async def test_settings_of_the_offer_count_and_are_not_acknowledged_again(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        peer = await ask(caller, "/bytes?n=50000", value=payload({Setting.INITIAL_WINDOW_SIZE: 10}))
        await peer.until(lambda got: got.kind == Kind.DATA)
        await greet(peer)
        acks = 0
        while not acks:
            got = await peer.until(lambda got: got.kind == Kind.SETTINGS)
            acks += bool(got.flags & ACK)
        assert len(peer.message(1).body) == 10
        await peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 60_000}))
        while len(peer.message(1).body) < 50_000:
            got = await peer.until(lambda got: got.kind in (Kind.SETTINGS, Kind.DATA))
            acks += got.kind == Kind.SETTINGS and bool(got.flags & ACK)
        await peer.settled()
    assert acks == 2  # of two SETTINGS frames


async def test_offer_is_taken_after_other_requests(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        for body in (b"a", b"b"):
            answer = await caller.request("POST", "/echo", body=body)
            assert answer.status == 200
        peer = await ask(caller)
        await greet(peer, peer.hello(client=True))
        assert (await peer.whole(1)).status == 200


async def test_preface_may_come_with_the_offer_and_in_pieces(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        fields = "".join(f"{name}: {value}\r\n" for name, value in offer())
        head = f"GET /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()
        await caller.send(head + PREFACE[:10])
        assert (await caller.read_response_head()).second == "101"
        peer = await taken(caller)
        assert (await peer.whole(1)).status == 200
        await greet(peer, PREFACE[10:] + settings({}))
        await peer.settled()


@pytest.mark.parametrize("early", [True, False])
async def test_what_is_no_preface_ends_the_connection(engine: str, early: bool) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        wrong = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        if early:
            fields = "".join(f"{name}: {value}\r\n" for name, value in offer())
            await caller.send(f"GET /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode() + wrong)
            assert (await caller.read_response_head()).second == "101"
            peer = await taken(caller)
        else:
            peer = await ask(caller)
            assert (await peer.whole(1)).status == 200
            await peer.send(wrong)
        await peer.to_the_end()
        await way.front.seen.until(lambda: way.front.seen.open == 0)
    assert peer.goaway is not None
    assert peer.goaway.code == Code.PROTOCOL_ERROR
    assert way.front.seen.refused["protocol"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        [("Connection", "Upgrade"), *offer()[1:]],
        [("Connection", "HTTP2-Settings"), *offer()[1:]],
        offer(upgrade="h2"),
        offer(upgrade="websocket, h2c"),
        offer()[:2],
        [*offer(), offer()[2]],
        offer("AAMAAABkAA"),
        offer("AAMAAA+k"),
        offer("AAMAAABk" * 33),
        offer(payload({Setting.ENABLE_PUSH: 2})),
        offer(payload({Setting.INITIAL_WINDOW_SIZE: 1 << 31})),
        offer(payload({Setting.MAX_FRAME_SIZE: 1})),
        [*offer(), ("Content-Length", "3")],
        [*offer(), ("Transfer-Encoding", "chunked")],
    ],
)
async def test_other_offers_are_answered_over_http1(engine: str, fields: list[tuple[str, str]]) -> None:
    framing = {name for name, _ in fields} & {"Content-Length", "Transfer-Encoding"}
    body = {"Content-Length": b"abc", "Transfer-Encoding": b"3\r\nabc\r\n0\r\n\r\n"}
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        for _ in range(2):
            await caller.send_head("POST", "/echo", fields)
            await caller.send(b"".join(body[name] for name in framing))
            answer = await caller.read_response("POST")
            assert answer.status == 200
            seen = json.loads(answer.body)
            assert seen["body"] == ("abc" if framing else "")
            assert not {name.lower() for name, _ in seen["headers"]} & {"upgrade", "http2-settings"}


async def test_target_of_a_proxy_is_answered_over_http1(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        await caller.send_head("GET", "http://app/echo", offer())
        assert (await caller.read_response("GET")).status == 200


async def test_websocket_that_offers_h2c_as_well_is_no_upgrade_to_it(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        key = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", new_key())]
        await caller.send_head("GET", "/ws", [*offer(), ("Upgrade", "websocket"), *key])
        head = await caller.read_response_head()
    assert head.get("upgrade", "") != "h2c"


async def test_large_head_is_that_of_stream_1(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        peer = await ask(caller, more=[("X-Large", "x" * 50_000)])
        await greet(peer, peer.hello(client=True))
        message = await peer.whole(1)
    assert (message.status, dict(json.loads(message.body)["headers"])["x-large"]) == (200, "x" * 50_000)


async def test_caller_may_cancel_the_first_call(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        peer = await ask(caller, "/slow?s=5")
        await greet(peer, peer.hello(client=True))
        await peer.send(reset(1))
        outcome = await way.front.seen.outcome()
        assert (await peer.whole(await peer.request(b"/echo"))).status == 200
    assert outcome.cause is not None


async def test_connection_drains_as_others_do(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        peer = await ask(caller, "/bytes?n=10")
        await greet(peer, peer.hello(client=True))
        assert (await peer.whole(1)).status == 200
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(way.front.engine.drain(["in"], 10.0))
            await peer.to_the_end()
        await way.front.seen.until(lambda: way.front.seen.open == 0)
    assert peer.goaway is not None
    assert peer.goaway.code == Code.NO_ERROR


async def test_floods_are_counted_from_the_first_frame(engine: str) -> None:
    limits = replace(PINGLESS, control_per_s=1.0, control_burst=10, own_app_factor=1.0)
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=limits) as way,
        connect(way.port) as caller,
    ):
        peer = await ask(caller)
        await greet(peer)
        await peer.send(frame(Kind.PING, payload=b"pingping") * 100)
        await peer.to_the_end()
    assert peer.goaway is not None
    assert peer.goaway.code == Code.ENHANCE_YOUR_CALM
    assert way.front.seen.refused["ping"] >= 1


async def test_caller_that_leaves_after_the_101_is_counted_out(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way:
        async with connect(way.port) as caller:
            await ask(caller)
        await way.front.seen.until(lambda: way.front.seen.opened == 1 and way.front.seen.open == 0)


async def test_idle_connection_rests_and_wakes(engine: str) -> None:
    """In the native engine what rests has no h2; the settings of the offer are told to the next one."""
    limits = replace(PINGLESS, rest_s=0.0)
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=limits) as way,
        connect(way.port) as caller,
    ):
        peer = await ask(caller)
        await greet(peer, peer.hello(client=True))
        assert (await peer.whole(1)).status == 200
        await peer.settled()
        for _ in range(3):
            assert (await peer.whole(await peer.request(b"/echo"))).status == 200
