"""The orderly end on every address that the API has, not on the first alone."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import Standing, eventually, invoke, standing
from tests.support.http_client import connect


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh."""
    async with standing(tmp_path_factory.mktemp("addresses")) as started:
        yield started


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_call_in_flight_on_any_address_of_the_api_finishes(mesh: Standing, host: str) -> None:
    flags = ("--dapr-listen-addresses", "127.0.0.1,127.0.0.2", "--drain", "0s")
    leaving = await mesh.mesh.sidecar(f"leaving-{host[-1]}", flags=flags)
    async with asyncio.timeout(20.0), connect(leaving.http_port, host=host) as slow:
        await slow.send_head("POST", invoke("shop", "/duplex"), [("Content-Length", "4")])
        await slow.send(b"ab")
        head = await slow.read_response_head()
        body = slow.body("POST", head, [])
        assert await anext(body) == b"ab"
        leaving.process.send_signal(signal.SIGTERM)

        async def is_draining() -> bool:
            return await no_longer_listens(leaving.http_port)

        await eventually(is_draining)
        await slow.send(b"cd")
        assert await anext(body) == b"cd"
    assert await leaving.process.ended() == 0


async def no_longer_listens(port: int) -> bool:
    """Whether the first address of the API is closed: outbound drains."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
