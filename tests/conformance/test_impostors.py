"""Endpoints that are not who they were announced to be: calls go to those that have proven themselves, and hardly meet the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from proxy.contract.engine import Cluster, ListenerSpec, Upstream
from proxy.contract.plan import Cause
from tests.conformance.apps import http_app, raw_app
from tests.conformance.harness import Node, always, plan, running
from tests.conformance.identities import Mint, spiffe
from tests.support.http_client import connect

BOGUS = 400
KEY = "callee"


@dataclass(frozen=True, slots=True)
class Scene:
    """A caller, two honest instances of its callee, and an impostor that answers on every address of 127/8."""

    front: Node
    port: int
    honest: tuple[str, str]
    impostor: int

    def bogus(self, count: int) -> list[str]:
        """So many addresses of the impostor."""
        return [f"127.1.{n // 250}.{n % 250 + 1}:{self.impostor}" for n in range(count)]

    def announce(self, *, known: Sequence[str] = (), heard: Sequence[str] = (), key: str = KEY) -> None:
        """Push a cluster: what this host knows, and what was only heard."""
        upstreams = (
            *(Upstream(address=address) for address in known),
            *(Upstream(address=address, rank=1) for address in heard),
        )
        self.front.engine.set_cluster(Cluster(key=key, wire="postern", tls="mesh", upstreams=upstreams))

    async def call(self, times: int = 1) -> list[int]:
        """The answers' statuses; each call has twenty seconds."""
        found = []
        async with connect(self.port) as caller:
            for _ in range(times):
                async with asyncio.timeout(20.0):
                    found.append((await caller.request("GET", "/echo")).status)
        return found

    def load(self, address: str) -> dict[str, object]:
        """What the engine says of an endpoint."""
        return next(load for load in self.front.engine.loads(KEY) if load["address"] == address)


@asynccontextmanager
async def scene(engine: str, mint: Mint) -> AsyncIterator[Scene]:
    async with (
        http_app() as app,
        running(engine) as front,
        running(engine) as one,
        running(engine) as two,
        running(engine) as impostor,
    ):
        ports = []
        for node in (one, two):
            node.engine.set_identity(mint.identity("callee"))
            node.cluster("app", app)
            ports.append(f"127.0.0.1:{await node.listen(always(plan()), name='peer', tls='mesh')}")
        impostor.engine.set_identity(mint.identity("impostor"))
        impostor.cluster("app", app)
        everywhere = ListenerSpec(name="peer", address="0.0.0.0:0", decide=always(plan()), tls="mesh")
        bound = await impostor.engine.listen(everywhere)
        front.engine.set_identity(mint.identity("caller"))
        port = await front.listen(always(plan(KEY, expect=frozenset({spiffe("callee")}))))
        yield Scene(front, port, (ports[0], ports[1]), int(bound.rpartition(":")[2]))


async def test_calls_reach_what_the_host_knows_among_400_bogus_announcements(engine: str, mint: Mint) -> None:
    async with scene(engine, mint) as mesh:
        mesh.announce(known=mesh.honest[:1], heard=mesh.bogus(BOGUS))
        assert await mesh.call(30) == [200] * 30
        await mesh.front.seen.until(lambda: len(mesh.front.seen.outcomes) == 30)
        assert {len(outcome.attempts) for outcome in mesh.front.seen.outcomes} == {1}, (
            "no call met an impostor"
        )


async def test_calls_stay_with_what_was_proven_when_bogus_announcements_come(engine: str, mint: Mint) -> None:
    async with scene(engine, mint) as mesh:
        mesh.announce(heard=mesh.honest[:1])
        assert await mesh.call() == [200]
        mesh.announce(heard=[*mesh.bogus(BOGUS), *mesh.honest[:1]])
        assert await mesh.call(30) == [200] * 30
        await mesh.front.seen.until(lambda: len(mesh.front.seen.outcomes) == 31)
        assert {len(outcome.attempts) for outcome in mesh.front.seen.outcomes} == {1}, (
            "no call met an impostor"
        )


async def test_without_mtls_calls_stay_with_those_that_speak_as_peers_do(engine: str) -> None:
    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with (
        http_app() as app,
        raw_app(garble) as garbling,
        running(engine) as front,
        running(engine) as peer,
    ):
        peer.cluster("app", app)
        honest = await peer.listen(always(plan()), name="peer")
        upstreams = (
            *(Upstream(address=f"127.0.0.{n}:{garbling if n == 1 else 9}", rank=1) for n in range(1, 40)),
            Upstream(address=f"127.0.0.1:{honest}"),
        )
        front.engine.set_cluster(Cluster(key=KEY, wire="postern", tls=None, upstreams=upstreams))
        port = await front.listen(always(plan(KEY)))
        async with connect(port) as caller:
            assert {(await caller.request("GET", "/echo")).status for _ in range(30)} == {200}
        await front.seen.until(lambda: len(front.seen.outcomes) == 30)
        assert {len(outcome.attempts) for outcome in front.seen.outcomes} == {1}


async def test_instance_that_was_only_announced_is_proven_beside_the_calls(engine: str, mint: Mint) -> None:
    async with scene(engine, mint) as mesh:
        mesh.announce(known=mesh.honest[:1], heard=[*mesh.bogus(2), mesh.honest[1]])
        async with asyncio.timeout(10):
            while not mesh.load(mesh.honest[1])["proven"]:
                assert await mesh.call() == [200]
        before = len(mesh.front.seen.outcomes)
        assert await mesh.call(40) == [200] * 40
        await mesh.front.seen.until(lambda: len(mesh.front.seen.outcomes) >= before + 40)
        used = {outcome.attempts[-1].endpoint for outcome in mesh.front.seen.outcomes}
        assert used == set(mesh.honest)


async def test_impostor_is_put_away_for_that_name_alone_and_announcing_it_again_gains_nothing(
    engine: str, mint: Mint
) -> None:
    async with scene(engine, mint) as mesh:
        bogus = mesh.bogus(1)
        mesh.announce(heard=[*bogus, *mesh.honest])
        async with asyncio.timeout(10):
            while not mesh.load(bogus[0])["ejectedForS"]:
                assert await mesh.call() == [200]
        assert 25 <= float(str(mesh.load(bogus[0])["ejectedForS"])) <= 30
        mesh.announce(heard=mesh.honest)
        mesh.announce(heard=[*bogus, *mesh.honest])
        assert float(str(mesh.load(bogus[0])["ejectedForS"])) > 20
        mesh.announce(heard=bogus, key="impostor")
        port = await mesh.front.listen(
            always(plan("impostor", expect=frozenset({spiffe("impostor")}))), name="other"
        )
        async with connect(port) as caller:
            assert (await caller.request("GET", "/echo")).status == 200
        mesh.front.engine.set_identity(
            mint.identity("caller")
        )  # what failed under the old roots may not under the new
        assert mesh.load(bogus[0])["ejectedForS"] == 0


async def test_only_endpoint_is_tried_even_where_it_was_put_away(engine: str, mint: Mint) -> None:
    async with scene(engine, mint) as mesh:
        mesh.announce(heard=mesh.bogus(1))
        assert await mesh.call(2) == [502, 502]
        await mesh.front.seen.until(lambda: len(mesh.front.seen.outcomes) == 2)
        assert {outcome.cause for outcome in mesh.front.seen.outcomes} == {Cause.TLS_IDENTITY}


@pytest.mark.parametrize("known", [True, False])
async def test_endpoint_that_never_says_who_it_is_holds_a_call_for_a_second_at_most(
    engine: str, mint: Mint, known: bool
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scene(engine, mint) as mesh, raw_app(silent) as hole:
        mesh.announce(known=[f"127.0.0.1:{hole}"], heard=mesh.honest[:1])
        if not known:
            mesh.announce(known=mesh.honest[:1], heard=[f"127.0.0.1:{hole}"])
        assert await mesh.call() == [200]
