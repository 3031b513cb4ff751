"""Clusters: replaced, dropped, empty, and with more endpoints than one."""

import asyncio

import pytest

from proxy.contract.engine import Cluster
from tests.conformance.accepting import Script
from tests.conformance.apps import raw_app
from tests.conformance.frames import dial
from tests.conformance.harness import always, leading, plan, running
from tests.support.http_client import connect
from tests.support.http_wire import read_head


async def test_replaced_cluster_serves_the_next_call(engine: str) -> None:
    async with (
        raw_app(_named(b"old")) as old,
        raw_app(_named(b"new")) as new,
        leading(engine, "one", old) as way,
        connect(way.port) as caller,
    ):
        first = await caller.request("GET", "/")
        way.front.cluster("app", new)
        second = await caller.request("GET", "/")
    assert (first.body, second.body) == (b"old", b"new")


async def test_dropped_cluster_has_no_endpoint(engine: str) -> None:
    async with (
        raw_app(_named(b"old")) as old,
        leading(engine, "one", old) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")
        way.front.engine.drop_cluster("app")
        response = await caller.request("GET", "/")
        loads = way.front.engine.loads("app")
    assert (response.status, response.get("postern-error"), loads) == (503, "no-endpoint", ())


async def test_loads_names_every_endpoint(engine: str) -> None:
    async with (
        raw_app(_named(b"x")) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")
        loads = way.front.engine.loads("app")
    assert [load["address"] for load in loads] == [f"127.0.0.1:{port}"]


async def test_empty_cluster_is_no_endpoint(engine: str) -> None:
    async with running(engine) as node:
        node.engine.set_cluster(Cluster(key="app", wire="http1", tls=None, upstreams=()))
        port = await node.listen(always(plan()))
        async with connect(port) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (503, "no-endpoint")


@pytest.mark.parametrize("calls", [600])
async def test_calls_are_spread_evenly_over_two_equal_endpoints(engine: str, calls: int) -> None:
    hits = [0, 0]

    def app(number: int) -> Script:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await read_head(reader):
                hits[number] += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return serve

    async with raw_app(app(0)) as first, raw_app(app(1)) as second, running(engine) as node:
        node.cluster("app", first, second)
        port = await node.listen(always(plan()))
        async with dial(port) as caller:
            for _ in range(calls // 100):
                for stream in [await caller.request() for _ in range(100)]:
                    await caller.whole(stream)
    assert {(outcome.status, outcome.cause) for outcome in node.seen.outcomes} == {(200, None)}
    assert sum(hits) == calls
    assert 0.35 * calls <= hits[0] <= 0.65 * calls


def _named(name: bytes) -> Script:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))

    return serve
