"""Which endpoint and which side of a split a call goes to, and when an attempt counts towards that."""

import asyncio

from proxy.contract.engine import Cluster, Upstream
from tests.conformance.accepting import Script
from tests.conformance.apps import raw_app
from tests.conformance.harness import always, plan, running
from tests.support.http_client import connect
from tests.support.http_wire import read_head

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


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
