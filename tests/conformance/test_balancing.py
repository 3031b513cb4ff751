"""Which endpoint and which side of a split a call goes to, and when an attempt counts towards that."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from proxy.contract.engine import Cluster, Upstream
from proxy.contract.plan import Route
from tests.conformance.accepting import Script
from tests.conformance.apps import raw_app
from tests.conformance.frames import FramePeer, Kind, dial, serving
from tests.conformance.harness import EDITS, Node, always, leading, plan, retry, running
from tests.support.http_client import connect
from tests.support.http_wire import read_head
from tests.support.ports import free_ports

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def load(node: Node, cluster: str = "app") -> tuple[object, object, object]:
    """Of a cluster's only endpoint: calls in flight, its latency in milliseconds, and for how long it is ejected."""
    (known,) = node.engine.loads(cluster)
    return known["inFlight"], known["rttMs"], known["ejectedForS"]


def two_steps(go: asyncio.Event) -> Script:
    """An app that gives its head at once and the body when told to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            writer.write(HEAD)
            await go.wait()
            writer.write(b"ok")

    return serve


async def test_changed_weight_of_a_known_endpoint_takes_effect(engine: str) -> None:
    hits = {"a": 0, "b": 0}

    def app(name: str) -> Script:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await read_head(reader):
                hits[name] += 1
                writer.write(HEAD + b"ok")

        return serve

    async with raw_app(app("a")) as a, raw_app(app("b")) as b, running(engine) as node:

        def weigh(one: int, other: int) -> None:
            upstreams = (
                Upstream(address=f"127.0.0.1:{a}", weight=one),
                Upstream(address=f"127.0.0.1:{b}", weight=other),
            )
            node.engine.set_cluster(Cluster(key="app", wire="http1", tls=None, upstreams=upstreams))

        weigh(1, 1)
        async with connect(await node.listen(always(plan()))) as caller:
            for _ in range(4):
                await caller.request("GET", "/")
            hits.update(a=0, b=0)
            weigh(1, 90)
            for _ in range(100):
                await caller.request("GET", "/")
    assert hits["b"] > 90


async def test_latency_counts_at_the_head_and_a_call_is_in_flight_until_its_end(engine: str) -> None:
    go = asyncio.Event()
    async with (
        raw_app(two_steps(go)) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        _, unmeasured, _ = load(way.front)
        await caller.send_head("GET", "/")
        assert await caller.reader.readuntil(b"\r\n\r\n")
        in_flight, measured, _ = load(way.front)
        go.set()
        assert await caller.reader.readexactly(2) == b"ok"
        await way.front.seen.outcome()
        after = load(way.front)
    assert (in_flight, unmeasured) == (1, 30.0)
    assert measured != unmeasured
    assert after[:2] == (0, measured)


async def test_endpoint_is_ejected_at_the_failure_and_taken_back_at_the_next_head(engine: str) -> None:
    go = asyncio.Event()
    (port,) = free_ports(1)
    async with leading(engine, "one", port) as way, connect(way.port) as caller:
        assert (await caller.request("GET", "/")).status == 502
        ejected = load(way.front)
        async with raw_app(two_steps(go), port):
            await caller.send_head("GET", "/")
            assert await caller.reader.readuntil(b"\r\n\r\n")
            taken_back = load(way.front)
            go.set()
            assert await caller.reader.readexactly(2) == b"ok"
    assert (ejected[0], taken_back[0], taken_back[2]) == (0, 1, 0.0)
    assert ejected[2] != 0.0


@pytest.mark.parametrize("is_grpc", [False, True])
async def test_endpoint_that_fails_fast_is_not_preferred(engine: str, is_grpc: bool) -> None:
    """Neither where the status of a response says so, nor where gRPC's comes after a message."""
    answered: Counter[bool] = Counter()

    def app(*, fails: bool) -> Callable[[FramePeer], Awaitable[None]]:
        async def serve(peer: FramePeer) -> None:
            while (got := await peer.read()) is not None:
                if got.kind == Kind.HEADERS:
                    answered[fails] += 1
                    if not fails:
                        await asyncio.sleep(0.05)  # what an answer takes
                    status = 200 if is_grpc or not fails else 500
                    trailers = ((b"grpc-status", b"14" if fails else b"0"),) if is_grpc else ()
                    await peer.respond(got.stream, status=status, body=b"12345", trailers=trailers)

        return serve

    fields = ((b"content-type", b"application/grpc"), (b"te", b"trailers")) if is_grpc else ()
    async with (
        serving(app(fails=False)) as sound,
        serving(app(fails=True)) as failing,
        running(engine) as node,
    ):
        node.cluster("app", sound, failing, wire="h2c")
        async with dial(await node.listen(always(plan()))) as caller:
            for _ in range(50):
                stream = await caller.request(b"/s/M", method=b"POST", headers=fields, body=b"12345")
                await caller.whole(stream)
    assert answered[True] < 25  # it would get nearly all


async def test_route_of_a_split_is_drawn_once_per_call(engine: str) -> None:
    calls: list[tuple[str, int]] = []

    def app(name: str) -> Script:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await read_head(reader):
                calls.append((name, int(head.get("number") or -1)))
                writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

        return serve

    routes = (Route(cluster="a", edits=EDITS), Route(cluster="b", edits=EDITS))
    async with raw_app(app("a")) as a, raw_app(app("b")) as b, running(engine) as node:
        node.cluster("a", a)
        node.cluster("b", b)
        made = plan(routes=routes, retries=(retry(2, http_codes=None),))
        async with connect(await node.listen(always(made))) as caller:
            for number in range(40):
                await caller.request("GET", "/", headers=[("number", str(number))])
    sides = [{name for name, called in calls if called == number} for number in range(40)]
    assert len(calls) == 80
    assert {len(side) for side in sides} == {1}
    assert set().union(*sides) == {"a", "b"}
