"""The small HTTP server and client over real loopback and unix sockets: they exist to be on them."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proxy.api.server import Handler, LocalHttp, LocalRequest
from proxy.errors import ListenError
from proxy.wire.http_client import LocalHttpError, LocalResponse, TooLargeError, request


async def echo(asked: LocalRequest) -> LocalResponse:
    """What was asked, as text."""
    seen = f"{asked.method} {asked.target} {asked.authority} {asked.body.decode()}"
    return LocalResponse(
        200, ((b"content-type", b"text/plain"), (b"x-fields", b"%d" % len(asked.headers))), seen.encode()
    )


@asynccontextmanager
async def serving(
    handler: Handler = echo,
    address: str = "127.0.0.1:0",
    *,
    body_bytes: int = 1000,
    handler_s: float = 5.0,
) -> AsyncIterator[str]:
    server = LocalHttp(handler, body_bytes=body_bytes, handler_s=handler_s)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.run())
        yield await server.serve(address)
        running.cancel()


async def raw(address: str, data: bytes) -> bytes:
    """Everything the server says to these bytes, until it closes."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer


async def test_request_and_response_travel_whole() -> None:
    async with serving() as address:
        answer = await request(
            address, "PUT", "/a?b", headers=[("X-One", "1"), (b"x-two", b"2")], body=b"hi", timeout_s=30
        )
    assert answer.status == 200
    assert answer.body == f"PUT /a?b {address} hi".encode()
    assert dict(answer.headers)[b"x-fields"] == b"3"


async def test_unix_socket_is_private_and_leaves_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(address=f"unix:{path}") as address:
        assert address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        answer = await request(address, "GET", "/", timeout_s=30)
    assert answer.body == b"GET / localhost "
    assert not path.exists()


async def test_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with serving(address=f"unix:{path}") as address:
        assert (await request(address, "GET", "/", timeout_s=30)).status == 200
        with pytest.raises(ListenError, match="in use"):
            await LocalHttp(echo).serve(address)
        assert (await request(address, "GET", "/", timeout_s=30)).status == 200


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:x", "unix:/nonexistent/folder/s", "unix:/tmp/" + "x" * 200]
)
async def test_address_that_is_none_says_so(address: str) -> None:
    with pytest.raises(ListenError, match="can't listen"):
        await LocalHttp(echo).serve(address)


async def test_port_in_use_says_so() -> None:
    async with serving() as address:
        with pytest.raises(ListenError, match="in use"):
            await LocalHttp(echo).serve(address)


async def test_keep_alive_head_and_close_over_one_connection() -> None:
    async with serving() as address:
        answer = await raw(
            address,
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert b"GET /1 a " in answer
    assert b"HEAD /2" not in answer
    assert b"content-length: 10" in answer
    assert answer.endswith(b"GET /3 a ")


async def test_body_of_exactly_the_limit_passes_and_one_more_is_413() -> None:
    async with serving() as address:
        fits = await request(address, "POST", "/", body=b"x" * 1000, timeout_s=30)
        too_large = await request(address, "POST", "/", body=b"x" * 1001, timeout_s=30)
    assert fits.status == 200
    assert too_large.status == 413
    assert b"ERR_TOO_LARGE" in too_large.body


async def test_bad_head_is_400() -> None:
    async with serving() as address:
        assert (await raw(address, b"GET / HTTP/1.1\nHost: a\n\n")).startswith(b"HTTP/1.1 400 ")


async def test_handler_that_fails_is_500_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(asked: LocalRequest) -> LocalResponse:
        if asked.target == "/bad?secret":
            raise KeyError("x")
        return LocalResponse(204)

    async with serving(failing) as address:
        assert (await request(address, "GET", "/bad?secret", timeout_s=30)).status == 500
        assert (await request(address, "GET", "/good", timeout_s=30)).status == 204
    assert "GET /bad failed" in caplog.text


async def test_handler_that_hangs_is_504() -> None:
    async def hanging(_asked: LocalRequest) -> LocalResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(hanging, handler_s=0.02) as address:
        assert (await request(address, "GET", "/", timeout_s=30)).status == 504


async def test_caller_that_leaves_cancels_the_handler() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def hanging(_asked: LocalRequest) -> LocalResponse:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(hanging) as address, asyncio.timeout(30):
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await began.wait()
        writer.close()
        await cancelled.wait()


async def test_requests_before_run_wait_for_it() -> None:
    server = LocalHttp(echo)
    address = await server.serve("127.0.0.1:0")
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        running = group.create_task(server.run())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        running.cancel()


async def test_server_answers_concurrently() -> None:
    barrier = asyncio.Barrier(5)

    async def together(_asked: LocalRequest) -> LocalResponse:
        await barrier.wait()
        return LocalResponse(204)

    async with serving(together) as address, asyncio.TaskGroup() as group:
        asked = [group.create_task(request(address, "GET", "/", timeout_s=30)) for _ in range(5)]
    assert [task.result().status for task in asked] == [204] * 5


@asynccontextmanager
async def saying(data: bytes) -> AsyncIterator[str]:
    """A server that says these bytes to the first bytes it reads, and closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(data)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
    ],
    ids=["nothing", "short", "malformed", "too-large"],
)
async def test_broken_answer_raises(data: bytes) -> None:
    async with saying(data) as address:
        with pytest.raises(LocalHttpError, match=address):
            await request(address, "GET", "/", timeout_s=30, limit_bytes=100)


async def test_oversized_answer_is_told_apart() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101) as address:
        with pytest.raises(TooLargeError, match="larger than 100 bytes"):
            await request(address, "GET", "/", timeout_s=30, limit_bytes=100)


async def test_close_delimited_and_chunked_answers_are_read() -> None:
    for data in (
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ):
        async with saying(data) as address:
            assert (await request(address, "GET", "/", timeout_s=30)).body == b"ok"


async def test_nobody_there_raises(unused_tcp_port: int, tmp_path: Path) -> None:
    for address in (f"127.0.0.1:{unused_tcp_port}", f"unix:{tmp_path}/none"):
        with pytest.raises(LocalHttpError):
            await request(address, "GET", "/", timeout_s=30)


async def test_no_answer_in_time_raises() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        with pytest.raises(TimeoutError):
            await request(f"{host}:{port}", "GET", "/", timeout_s=0.05)


async def test_header_that_would_split_the_request_raises() -> None:
    async with serving() as address:
        with pytest.raises(LocalHttpError, match="can't be written"):
            await request(address, "GET", "/", headers=[("x", "a\r\nb: c")], timeout_s=30)
