"""What an app is sent of the spellings that three callers try, through every entrance of two sidecars."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import Forge, h2_head, peer_connection
from tests.routers.programs import ask
from tests.support.http_wire import read_head
from tests.support.mesh import Mesh, Sidecar

CALLERS = ("wary", "strict", "free")


@dataclass(slots=True, kw_only=True)
class Keeper:
    """An app that answers each request with its target and keeps the head, so that it can be sent to other apps."""

    port: int = 0
    heads: dict[str, bytes] = field(default_factory=dict)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await read_head(reader)) is not None:
                lines = [f"{head.first} {head.second} HTTP/1.1", *(f"{n}: {v}" for n, v in head.headers)]
                self.heads[head.second] = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
                body = head.second.encode("latin-1")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def keeper() -> AsyncIterator[Keeper]:
    kept = Keeper()
    server = await asyncio.start_server(kept.take, "127.0.0.1", 0)
    kept.port = server.sockets[0].getsockname()[1]
    try:
        yield kept
    finally:
        server.close()


def by_header(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\ndapr-app-id: shop\r\n\r\n".encode()


def by_host(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n".encode()


def by_path(target: str) -> bytes:
    return f"GET /v1.0/invoke/shop/method{target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


WAYS = (by_header, by_host, by_path)
SURFACES = ("own", "dapr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The sidecars of a caller and of an app that keeps what it is sent; peers are played, with certificates of their own."""

    caller: Sidecar
    callee: Sidecar
    forge: Forge

    async def delivered(self, spellings: Sequence[str], *, every_way: bool) -> dict[str, set[str]]:
        """The targets that the app was sent for each caller. Each spelling goes by one way and another's by the next, or by every one."""
        async with asyncio.timeout(300), asyncio.TaskGroup() as tasks:
            local = tasks.create_task(self._from_app(spellings, every_way=every_way))
            peers = {
                caller: tasks.create_task(self._from_peer(caller, spellings, every_way=every_way))
                for caller in CALLERS
            }
        found = {caller: task.result() for caller, task in peers.items()}
        found["wary"] |= local.result()
        return found

    async def _from_app(self, spellings: Sequence[str], *, every_way: bool) -> set[str]:
        heads = [
            way(spelling)
            for number, spelling in enumerate(spellings)
            for index, way in enumerate(WAYS)
            if every_way or number % len(WAYS) == index
        ]
        answers = await ask(self.caller.http_port, heads)
        return {answer.body.decode("latin-1") for answer in answers if answer and answer.status == 200}

    async def _from_peer(self, caller: str, spellings: Sequence[str], *, every_way: bool) -> set[str]:
        context = self.forge.context(SpiffeId("public", "default", caller))
        requests = [
            [*h2_head("GET", spelling), ("postern-surface", surface)]
            for number, spelling in enumerate(spellings)
            for index, surface in enumerate(SURFACES)
            if every_way or number % len(SURFACES) == index
        ]
        client = h2.connection.H2Connection(
            h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        client.initiate_connection()
        bodies: dict[int, bytes] = {}
        async with peer_connection(self.callee.peer_port, context) as connection:
            waiting = iter(requests)
            in_flight = 0
            while True:
                while in_flight < 16 and (request := next(waiting, None)) is not None:
                    client.send_headers(client.get_next_available_stream_id(), request, end_stream=True)
                    in_flight += 1
                await connection.send(client.data_to_send())
                if not in_flight:
                    return {body.decode("latin-1") for body in bodies.values()}
                data = await connection.reader.read(65_536)
                assert data, "the peer port closed the connection"
                for event in client.receive_data(data):
                    in_flight -= _take(event, client, bodies)


def _take(event: h2.events.Event, client: h2.connection.H2Connection, bodies: dict[int, bytes]) -> bool:
    """Note what an event says of a target that was delivered; whether a request has ended."""
    match event:
        case h2.events.ResponseReceived():
            assert event.stream_id is not None
            if (b":status", b"200") in event.headers:
                bodies[event.stream_id] = b""
        case h2.events.DataReceived():
            if event.stream_id in bodies:
                bodies[event.stream_id] += event.data
            client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        case h2.events.ConnectionTerminated():
            pytest.fail(f"the peer port ends the connection: {event.error_code} {event.additional_data!r}")
    return isinstance(event, h2.events.StreamEnded | h2.events.StreamReset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The targets that an app was sent for each caller, and the head of a request with each."""

    targets: dict[str, set[str]]
    heads: dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Access rules, and by which flag a sidecar gets them: a file, or the folder that it is in."""

    flag: str
    text: str

    def flags(self, mesh: Mesh) -> tuple[str, str]:
        """Flags of the app's sidecar."""
        path = mesh.write("rules/rules.yaml", self.text)
        return self.flag, str(path if self.flag == "--config" else path.parent)


async def deliver(
    files: Path, engine: str, rules: Rules, spellings: Sequence[str], *, every_way: bool
) -> Delivered:
    """Try the spellings on an app with these rules, between sidecars with this engine."""
    flags = ("--engine", engine)
    async with Mesh(files) as mesh, keeper() as kept:
        await mesh.start_sentry()
        async with asyncio.TaskGroup() as tasks:
            caller = tasks.create_task(mesh.sidecar(CALLERS[0], flags=flags))
            callee = tasks.create_task(
                mesh.sidecar("shop", app_port=kept.port, flags=(*flags, *rules.flags(mesh)))
            )
        pair = Pair(
            caller=caller.result(), callee=callee.result(), forge=Forge.of(mesh.root, files / "forged")
        )
        return Delivered(targets=await pair.delivered(spellings, every_way=every_way), heads=kept.heads)
