"""Balancing that is chosen: which endpoint takes a call. Turns and calls in flight are counted by each thread of an engine by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from proxy.contract.balancing import Balancing
from proxy.contract.engine import Cluster, Upstream
from proxy.contract.plan import Cause
from tests.conformance.accepting import Script
from tests.conformance.apps import raw_app
from tests.conformance.harness import Node, always, plan, retry, running
from tests.support.echo_client import EchoClient
from tests.support.grpc_app import start_server
from tests.support.http_client import connect
from tests.support.http_wire import read_head
from tests.support.ports import free_ports
from tests.support.proto.echo_pb2 import EchoRequest

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


class Trio:
    """Three apps; `calls`: which of them was called, in order."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.upstreams: tuple[Upstream, ...] = ()

    def app(self, number: int) -> Script:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await read_head(reader):
                self.calls.append(number)
                writer.write(HEAD + b"ok")

        return serve

    def push(self, node: Node, balancing: Balancing) -> None:
        node.engine.set_cluster(
            Cluster(key="app", wire="http1", tls=None, upstreams=self.upstreams, balancing=balancing)
        )


@asynccontextmanager
async def three(engine: str, balancing: Balancing) -> AsyncIterator[tuple[Node, Trio]]:
    """An engine that balances so over three apps."""
    async with AsyncExitStack() as stack:
        trio = Trio()
        ports = [await stack.enter_async_context(raw_app(trio.app(number))) for number in range(3)]
        node = await stack.enter_async_context(running(engine))
        trio.upstreams = tuple(Upstream(address=f"127.0.0.1:{port}") for port in ports)
        trio.push(node, balancing)
        yield node, trio


async def call(port: int, times: int = 1, **headers: str) -> None:
    """Calls one after the other."""
    async with connect(port) as caller:
        for _ in range(times):
            answer = await caller.request("GET", "/", headers=[*headers.items()])
            assert answer.status == 200


async def test_round_robin_takes_endpoints_in_turn(engine: str) -> None:
    async with three(engine, Balancing(policy="round-robin")) as (node, trio):
        await call(await node.listen(always(plan())), 9)
        assert trio.calls == [0, 1, 2] * 3


async def test_ring_hash_sends_the_same_value_to_the_same_endpoint(engine: str) -> None:
    balancing = Balancing(policy="ring-hash", header=b"x-user")
    async with three(engine, balancing) as (node, trio):
        port = await node.listen(always(plan()))
        found: dict[str, int] = {}
        for number in range(30):
            trio.calls.clear()
            await call(port, 3, **{"X-User": f"user-{number}"})
            assert len(set(trio.calls)) == 1
            found[f"user-{number}"] = trio.calls[0]
        assert set(found.values()) == {0, 1, 2}
        trio.calls.clear()
        await call(port, 60)
        assert len(set(trio.calls)) > 1, "without the header they are balanced by latency"


async def test_ring_hash_by_bytes_sends_every_call_to_one_endpoint(engine: str) -> None:
    async with three(engine, Balancing(policy="ring-hash", key=b"cart.default")) as (node, trio):
        await call(await node.listen(always(plan())), 20)
        assert len(set(trio.calls)) == 1


async def test_ring_hash_retries_at_another_endpoint(engine: str) -> None:
    (gone,) = free_ports(1)
    async with three(engine, Balancing(policy="ring-hash", key=b"k")) as (node, trio):
        port = await node.listen(always(plan(retries=(retry(3, Cause.CONNECT),))))
        await call(port)
        dead = trio.calls[0]
        upstreams = list(trio.upstreams)
        upstreams[dead] = Upstream(address=f"127.0.0.1:{gone}")
        trio.upstreams = tuple(upstreams)
        trio.push(node, Balancing(policy="ring-hash", key=b"k"))
        trio.calls.clear()
        await call(port, 10)
        assert len(trio.calls) == 10
        assert dead not in trio.calls


async def test_least_requests_takes_the_endpoint_with_the_fewest(engine: str) -> None:
    async with AsyncExitStack() as stack:
        ports = []
        for name in "abc":
            server, port = await start_server(name=name, address="127.0.0.1:0", services=(), reflects=False)
            stack.push_async_callback(server.stop, 0)
            ports.append(port)
        node = await stack.enter_async_context(running(engine))
        upstreams = tuple(Upstream(address=f"127.0.0.1:{port}") for port in ports)
        least = Balancing(policy="least-requests")
        node.engine.set_cluster(
            Cluster(key="app", wire="h2c", tls=None, upstreams=upstreams, balancing=least)
        )
        way = f"127.0.0.1:{await node.listen(always(plan()))}"
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(way)
        )  # one connection, so one thread
        client = EchoClient(channel)
        slow = [client.unary(EchoRequest(delay_s=60.0), method="Slow") for _ in range(2)]
        async with asyncio.timeout(10.0):
            while in_flight(node) != [0, 1, 1]:  # noqa: ASYNC110 - an engine tells nobody that a call has begun
                await asyncio.sleep(0.01)
        found = {(await client.unary(EchoRequest(message="x"))).app for _ in range(12)}
        assert len(found) == 1
        for call in slow:
            call.cancel()


def in_flight(node: Node) -> list[int]:
    """Calls at each endpoint, the fewest first."""
    return sorted(int(str(load["inFlight"])) for load in node.engine.loads("app"))


async def test_random_takes_every_endpoint_whatever_it_takes(engine: str) -> None:
    async with three(engine, Balancing(policy="random")) as (node, trio):
        await call(await node.listen(always(plan())), 90)
        counts = [trio.calls.count(number) for number in range(3)]
        assert min(counts) >= 10, "chance: that one of three gets fewer of 90 happens once in ten million"


async def test_pushed_policy_holds_for_the_next_call(engine: str) -> None:
    async with three(engine, Balancing(policy="ring-hash", key=b"k")) as (node, trio):
        port = await node.listen(always(plan()))
        await call(port, 5)
        assert len(set(trio.calls)) == 1
        trio.push(node, Balancing(policy="round-robin"))
        trio.calls.clear()
        await call(port, 6)
        assert sorted(trio.calls) == [0, 0, 1, 1, 2, 2]
