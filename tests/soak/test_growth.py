"""200,000 distinct names of every kind that callers choose: what they leave in memory stays within what the reference documents."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.reference.limits import CALLERS_MIB
from tests.conformance.frames import dial
from tests.support.engines import ENGINES
from tests.support.http_client import connect
from tests.support.mesh import Mesh, Sidecar

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_800)]

COUNT = 200_000
CONNECTIONS = 8
_BATCH = 16
_NAMES = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: names}}
spec:
  nameResolution: {{component: file, configuration: {{path: {path}}}}}
"""
Drive = Callable[[Sidecar, range], Coroutine[None, None, Counter[int]]]


@asynccontextmanager
async def pair(files: Path, engine: str) -> AsyncIterator[tuple[Sidecar, Sidecar]]:
    """A caller, which finds names in a file and so at once that there are none, and its callee."""
    async with Mesh(files) as mesh:
        cart = await mesh.sidecar("cart", app=await mesh.http_app(), flags=("--engine", engine))
        names = mesh.write("names.yaml", f"cart: 127.0.0.1:{cart.peer_port}\n")
        config = mesh.write("names-config.yaml", _NAMES.format(path=names))
        yield await mesh.sidecar("web", flags=("--engine", engine, "--config", str(config))), cart


def over_http(write: Callable[[int], str]) -> Drive:
    """Calls over HTTP/1.1; `write` makes a request's first line and fields."""

    async def drive(web: Sidecar, numbers: range) -> Counter[int]:
        seen: Counter[int] = Counter()
        async with connect(web.http_port) as connection:
            for start in range(0, len(numbers), _BATCH):
                batch = numbers[start : start + _BATCH]
                await connection.send("".join(f"{write(number)}\r\n\r\n" for number in batch).encode())
                for _ in batch:
                    seen[(await connection.read_response("GET")).status] += 1
        return seen

    return drive


def _to_cart(*, verb: str = "GET", target: str = "/echo", field: str = "x: y") -> str:
    return f"{verb} {target} HTTP/1.1\r\nhost: localhost\r\ndapr-app-id: cart\r\n{field}"


async def services(web: Sidecar, numbers: range) -> Counter[int]:
    """Calls of gRPC services that nobody serves."""
    seen: Counter[int] = Counter()
    async with dial(web.grpc_port) as caller:
        for number in numbers:
            fields = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
            path = b"/made.Up%d/Get%d" % (number, number)
            stream = await caller.request(path, method=b"POST", headers=fields, body=b"")
            seen[(await caller.whole(stream)).status] += 1
            del caller.messages[stream]
    return seen


KINDS: dict[str, Drive] = {
    "metadata": over_http(lambda n: _to_cart(field=f"x-meta-{n}: value {n}")),
    "origins": over_http(lambda n: _to_cart(field=f"origin: http://page-{n}.example")),
    "paths": over_http(lambda n: _to_cart(target=f"/echo/{n}")),
    "methods": over_http(lambda n: _to_cart(verb=f"VERB{n}")),
    "app-ids": over_http(lambda n: f"GET / HTTP/1.1\r\nhost: localhost\r\ndapr-app-id: unknown-{n}"),
    "hosts": over_http(lambda n: f"GET / HTTP/1.1\r\nhost: page-{n}.example\r\ndapr-app-id: cart"),
    "services": services,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
async def test_names_that_callers_make_up_take_no_more_than_is_documented(
    tmp_path: Path, engine: str, kind: str
) -> None:
    drive = KINDS[kind]
    async with pair(tmp_path, engine) as watched:
        web = watched[0]
        await drive(web, range(COUNT, COUNT + 200))  # what the first calls take is taken once
        before = [sidecar.process.rss_mb() for sidecar in watched]
        async with asyncio.TaskGroup() as tasks:
            made = [
                tasks.create_task(drive(web, range(start, COUNT, CONNECTIONS)))
                for start in range(CONNECTIONS)
            ]
        answered = sum((task.result() for task in made), Counter[int]())
        grown = [sidecar.process.rss_mb() - base for sidecar, base in zip(watched, before, strict=True)]
    assert answered.total() == COUNT
    assert max(grown) < CALLERS_MIB, (grown, answered)
