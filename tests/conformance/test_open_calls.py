"""Calls that are open when the rules change: ended if they are denied now, left alone if not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from proxy.contract.plan import Cause, Decision
from proxy.contract.recording import RecordingHead
from tests.conformance.apps import http_app
from tests.conformance.frames import Code, FramePeer, dial, serving
from tests.conformance.harness import DEADLINE_S, Node, plan, reply, running
from tests.conformance.test_websocket import upgrade
from tests.support.http_client import connect
from tests.support.websocket import TEXT, Frame, format_frame, read_frame

EVIL = 3  # the set of callers to be denied
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


class Rules:
    """A decider that turns: the caller `evil` is denied from then on. Counts how often it was asked."""

    def __init__(self) -> None:
        self.turned = False
        self.asked = 0

    def decide(self, head: RecordingHead) -> Decision:
        """By the header `x-caller`."""
        self.asked += 1
        is_evil = head.header_is(b"x-caller", EVIL)
        found = reply(Cause.DENIED) if is_evil and self.turned else plan()
        return replace(found, scopes=("access",))

    def turn(self, node: Node) -> None:
        """New rules, as the control plane brings them."""
        self.asked, self.turned = 0, True
        node.engine.invalidate("access")
        node.engine.redecide_open()


@asynccontextmanager
async def holding(engine: str, rules: Rules, arrived: asyncio.Queue[int]) -> AsyncIterator[tuple[Node, int]]:
    """A node whose app answers the head of every call but those to `/silent`, and ends none but `/end`."""

    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            path = peer.message(stream).get(b":path")
            if path != b"/silent":
                await peer.respond(stream, headers=GRPC[:1], end=False)
            arrived.put_nowait(stream)

    async with serving(app) as port, running(engine) as node:
        node.cluster("app", port, wire="h2c")
        node.engine.set_members(EVIL, frozenset({b"evil"}))
        yield node, await node.listen(rules.decide, name="peer")


async def test_denied_open_calls_end_and_others_go_on(engine: str) -> None:
    rules, arrived = Rules(), asyncio.Queue[int]()
    async with holding(engine, rules, arrived) as (node, port), dial(port) as peer:
        evil, good = (b"x-caller", b"evil"), (b"x-caller", b"good")

        async def begin(path: bytes, *headers: tuple[bytes, bytes], answered: bool = True) -> int:
            stream = await peer.request(path, method=b"POST", headers=headers, body=b"begun", end=False)
            async with asyncio.timeout(DEADLINE_S):
                await arrived.get()
            if answered:
                await peer.headed(stream)
            return stream

        silent = await begin(b"/silent", evil, answered=False)
        answered = await begin(b"/answered", evil)
        rpc = await begin(b"/a.Service/Call", evil, *GRPC)
        more = [await begin(b"/answered", evil) for _ in range(3)]
        kept = await begin(b"/answered", good)
        rules.turn(node)
        ended = [await peer.whole(stream) for stream in (silent, answered, rpc, *more)]
        outcomes = [await node.seen.outcome(number) for number in range(6)]
        await peer.send_body(kept, b"more")
        assert not peer.message(kept).over
        assert rules.asked == 2, "one decision for each kind of call"
    refused, cut, status = ended[:3]
    assert (refused.status, refused.get(b"postern-error")) == (403, b"denied")
    assert (cut.status, cut.reset) == (200, Code.INTERNAL_ERROR)
    assert dict(status.trailers)[b"grpc-status"] == b"7"
    assert {outcome.cause for outcome in outcomes} == {Cause.DENIED}
    assert {outcome.attempts[-1].cause for outcome in outcomes} == {Cause.DENIED}


async def test_rules_that_leave_a_call_allowed_do_not_disturb_it(engine: str) -> None:
    rules, arrived = Rules(), asyncio.Queue[int]()
    async with holding(engine, rules, arrived) as (node, port), dial(port) as peer:
        streams = []
        for _ in range(5):
            streams.append(await peer.request(b"/", headers=[(b"x-caller", b"good")]))
            await peer.headed(streams[-1])
        rules.turn(node)
        other = await peer.request(b"/silent", headers=[(b"x-caller", b"evil")])
        assert (await peer.whole(other)).status == 403
        assert not any(peer.message(stream).over for stream in streams)
        assert rules.asked == 2


async def test_tunnel_of_a_caller_denied_now_is_closed(engine: str) -> None:
    rules = Rules()
    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        node.engine.set_members(EVIL, frozenset({b"evil"}))
        port = await node.listen(rules.decide)
        async with connect(port) as caller:
            head, _ = await upgrade(caller, "/ws", ("X-Caller", "evil"))
            await caller.send(format_frame(Frame(TEXT, b"hello"), is_client=True))
            assert (await read_frame(caller.reader)).payload == b"hello"
            rules.turn(node)
            try:
                left = await caller.reader.read()
            except ConnectionResetError:
                left = b""
            outcome = await node.seen.outcome()
    assert (head.second, left, outcome.cause) == ("101", b"", Cause.DENIED)
