"""What an app's port speaks, by the first bytes of real servers and by made-up ones."""

import asyncio

import pytest

from proxy.cli.checks.app_protocol import Spoken, judge, mismatch, spoken_at


@pytest.mark.parametrize(
    ("answer", "spoken"),
    [
        (b"HTTP/1.1 ", "HTTP/1.1"),
        (b"<!DOCTYPE", "HTTP/1.1"),
        (bytes.fromhex("000006040000000000"), "HTTP/2"),
        (bytes.fromhex("15030100020246"), "TLS"),
        (b"", ""),
        (b"220 smtp ", ""),
    ],
)
def test_first_bytes_tell(answer: bytes, spoken: Spoken) -> None:
    assert judge(answer) == spoken


@pytest.mark.parametrize(
    ("protocol", "spoken", "use"),
    [
        ("http", "HTTP/1.1", ""),
        ("grpc", "HTTP/2", ""),
        ("http", "TLS", "--app-protocol https"),
        ("grpc", "TLS", "--app-protocol grpcs"),
        ("grpc", "HTTP/1.1", "--app-protocol http"),
        ("http", "HTTP/2", "--app-protocol grpc"),
        ("grpcs", "", ""),
    ],
)
def test_mismatch_names_the_protocol_to_use(protocol: str, spoken: Spoken, use: str) -> None:
    told = mismatch(protocol, spoken, "::1", 80)
    assert told.endswith(use)
    assert not told or told.startswith("the app at [::1]:80 ")


async def test_server_is_asked_and_nobody_is_refused() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await spoken_at("127.0.0.1", port) == "HTTP/1.1"
    with pytest.raises(ConnectionRefusedError):
        await spoken_at("127.0.0.1", port)
