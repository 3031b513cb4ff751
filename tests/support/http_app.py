"""The HTTP/1.1 app under test, run as a process: `python -m tests.support.http_app [--name NAME] [--port N]`.

Prints one JSON line `{"port": N}` once it listens. Endpoints are in `ENDPOINTS`; any path not there is answered by /echo.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tests.support.errors import HttpSyntaxError
from tests.support.http_wire import (
    MAX_HEAD_BYTES,
    Head,
    Headers,
    format_chunk,
    format_end,
    format_head,
    read_body,
    read_head,
)
from tests.support.websocket import CLOSE, PING, PONG, Frame, accept_key, format_frame, read_frame

IDLE_S: Final = 300.0
EVENT_STREAM: Final[Headers] = [("content-type", "text/event-stream"), ("cache-control", "no-cache")]


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request with its connection. A handler answers by `reply`, `start`/`chunk`/`finish`, or raw writes."""

    app_name: str
    head: Head
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    keep_alive: bool = True
    has_read: bool = False
    trailers: Headers = field(default_factory=list)
    scripts: dict[str, list[int]] = field(default_factory=dict)  # the app's: bytes of each body, by key

    @property
    def path(self) -> str:
        return urlsplit(self.head.second).path

    def argument(self, name: str, default: str) -> str:
        """A query argument."""
        return parse_qs(urlsplit(self.head.second).query).get(name, [default])[-1]

    async def body(self) -> AsyncIterator[bytes]:
        """The request body; asks for it first if the client waits for `100 Continue`."""
        self.has_read = True
        if self.head.get("expect").lower() == "100-continue":
            await self.write(format_head("HTTP/1.1 100 Continue", []))
        async for part in read_body(self.reader, self.head, self.trailers):
            yield part

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def start(self, status: int, headers: Headers) -> None:
        """The head of a chunked answer."""
        await self.write(
            format_head(f"HTTP/1.1 {status} Status", [*headers, ("transfer-encoding", "chunked")])
        )

    async def chunk(self, data: bytes) -> None:
        await self.write(format_chunk(data))

    async def finish(self, trailers: Headers) -> None:
        await self.write(format_end(trailers))

    async def reply(self, status: int, body: bytes, headers: Headers) -> None:
        """A whole answer."""
        has_body = status not in {204, 304}
        length: Headers = [("content-length", str(len(body)))] if has_body else []
        head = format_head(f"HTTP/1.1 {status} Status", [*headers, *length])
        await self.write(head + (body if has_body and self.head.first != "HEAD" else b""))

    async def reply_json(self, status: int, content: object, headers: Headers | None = None) -> None:
        body = json.dumps(content).encode()
        await self.reply(status, body, [("content-type", "application/json"), *(headers or [])])


async def echo(exchange: Exchange) -> None:
    """All that arrived, as JSON: app, method, target, path, headers (pairs), body (latin-1), trailers."""
    body = b"".join([part async for part in exchange.body()])
    content = {
        "app": exchange.app_name,
        "pid": os.getpid(),
        "method": exchange.head.first,
        "target": exchange.head.second,
        "path": exchange.path,
        "headers": exchange.head.headers,
        "body": body.decode("latin-1"),
        "trailers": exchange.trailers,
    }
    await exchange.reply_json(200, content, [("x-app", exchange.app_name)])


async def cors(exchange: Exchange) -> None:
    """An app that lets in every page itself."""
    headers = [("access-control-allow-origin", "*"), ("vary", "Accept-Encoding, origin")]
    await exchange.reply_json(200, {"app": exchange.app_name}, headers)


async def traced(exchange: Exchange) -> None:
    """An app that tells of a trace itself."""
    await exchange.reply_json(200, {}, [("traceparent", "00-app-app-00")])


async def send_bytes(exchange: Exchange) -> None:
    """`?n=`: so many bytes, by length; `&chunk=` sends them chunked in pieces of that size."""
    remaining, size = int(exchange.argument("n", "1024")), int(exchange.argument("chunk", "0"))
    block = bytes(range(256)) * 256
    if size:
        await exchange.start(200, [("content-type", "application/octet-stream")])
        while remaining > 0:
            await exchange.chunk(block[: min(size, remaining, len(block))])
            remaining -= min(size, remaining, len(block))
        await exchange.finish([])
        return
    head: Headers = [("content-type", "application/octet-stream"), ("content-length", str(remaining))]
    await exchange.write(format_head("HTTP/1.1 200 OK", head))
    while remaining > 0:
        await exchange.write(block[: min(remaining, len(block))])
        remaining -= len(block)


async def sink(exchange: Exchange) -> None:
    """Reads the body, `?pause_s=` before each piece, and says how many bytes and trailers came."""
    pause_s = float(exchange.argument("pause_s", "0"))
    count = 0
    async for part in exchange.body():
        count += len(part)
        if pause_s:
            await asyncio.sleep(pause_s)
    await exchange.reply_json(200, {"bytes": count, "trailers": exchange.trailers})


async def duplex(exchange: Exchange) -> None:
    """Sends each piece of the body back as it arrives."""
    await exchange.start(200, [("content-type", "application/octet-stream")])
    async for part in exchange.body():
        await exchange.chunk(part)
    await exchange.finish(exchange.trailers)


async def events(exchange: Exchange) -> None:
    """`?n=` server-sent events, `?every_s=` apart."""
    every_s = float(exchange.argument("every_s", "0.01"))
    await exchange.start(200, EVENT_STREAM)
    for number in range(int(exchange.argument("n", "5"))):
        await exchange.chunk(f"id: {number}\ndata: event {number}\n\n".encode())
        await asyncio.sleep(every_s)
    await exchange.finish([])


async def slow(exchange: Exchange) -> None:
    """Answers after `?s=` seconds."""
    await asyncio.sleep(float(exchange.argument("s", "1")))
    await exchange.reply_json(200, {"app": exchange.app_name})


async def status(exchange: Exchange) -> None:
    """Answers with `?code=`; every `?header=name:value` is added."""
    added = parse_qs(urlsplit(exchange.head.second).query).get("header", [])
    headers: Headers = [(pair.partition(":")[0], pair.partition(":")[2]) for pair in added]
    code = int(exchange.argument("code", "200"))
    await exchange.reply(code, f"status {code}".encode(), [("content-type", "text/plain"), *headers])


async def script(exchange: Exchange) -> None:
    """Answers a `?key=` with one of `?codes=500,500,200` after the other, the last one for ever; /stats tells the bodies. 0: never."""
    seen = exchange.scripts.setdefault(exchange.argument("key", "-"), [])
    codes = [int(code) for code in exchange.argument("codes", "200").split(",")]
    code = codes[min(len(seen), len(codes) - 1)]
    seen.append(0)
    number = len(seen)
    async for part in exchange.body():
        seen[number - 1] += len(part)
    if code == 0:
        await asyncio.Event().wait()
    await exchange.reply(code, f"attempt {number}".encode(), [("content-type", "text/plain")])


async def trailers(exchange: Exchange) -> None:
    """A chunked answer with trailers; the request's own trailers come back as `x-got-<name>`."""
    async for _ in exchange.body():
        pass
    await exchange.start(200, [("content-type", "text/plain"), ("trailer", "x-checksum")])
    await exchange.chunk(b"body")
    await exchange.finish(
        [("x-checksum", "abc123"), *((f"x-got-{name}", value) for name, value in exchange.trailers)]
    )


async def hints(exchange: Exchange) -> None:
    """A 103 before the answer."""
    await exchange.write(format_head("HTTP/1.1 103 Early Hints", [("link", "</a.css>; rel=preload")]))
    await exchange.reply(200, b"hinted", [("content-type", "text/plain")])


async def early(exchange: Exchange) -> None:
    """Answers `?code=` before it reads the body, which it then reads and forgets."""
    await exchange.reply(int(exchange.argument("code", "413")), b"early", [("content-type", "text/plain")])
    async for _ in exchange.body():
        pass


async def die(exchange: Exchange) -> None:
    """`?when=body` (default): cuts a chunked answer in its middle; `head`: hangs up without an answer; `length`: short of its length."""
    exchange.keep_alive = False
    exchange.has_read = True
    when = exchange.argument("when", "body")
    if when == "length":
        await exchange.write(format_head("HTTP/1.1 200 OK", [("content-length", "1000")]) + b"x" * 100)
    elif when == "body":
        await exchange.start(200, [("content-type", "text/plain")])
        await exchange.chunk(b"half of a body")


async def websocket(exchange: Exchange) -> None:
    """Echoes frames; `?refuse=code` answers that instead; offers the first subprotocol asked for."""
    exchange.keep_alive = False
    if refuse := exchange.argument("refuse", ""):
        await exchange.reply(int(refuse), b"refused", [("content-type", "text/plain")])
        return
    if exchange.head.get("upgrade").lower() != "websocket":
        await exchange.reply(426, b"websocket only", [("upgrade", "websocket")])
        return
    headers: Headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(exchange.head.get("sec-websocket-key"))),
    ]
    if asked := exchange.head.get("sec-websocket-protocol"):
        headers.append(("Sec-WebSocket-Protocol", asked.split(",")[0].strip()))
    await exchange.write(format_head("HTTP/1.1 101 Switching Protocols", headers))
    while True:
        frame = await read_frame(exchange.reader)
        answer = Frame(PONG, frame.payload) if frame.opcode == PING else frame
        await exchange.write(format_frame(answer, is_client=False))
        if frame.opcode == CLOSE:
            return


ENDPOINTS: Final[dict[str, Callable[[Exchange], Awaitable[None]]]] = {
    "/echo": echo,
    "/cors": cors,
    "/traced": traced,
    "/bytes": send_bytes,
    "/sink": sink,
    "/duplex": duplex,
    "/sse": events,
    "/slow": slow,
    "/status": status,
    "/script": script,
    "/trailers": trailers,
    "/hints": hints,
    "/early": early,
    "/die": die,
    "/ws": websocket,
}


class App:
    """The server; counts what it saw for /stats."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._requests: dict[str, int] = {}
        self._connections = 0
        self._cut = 0
        self._scripts: dict[str, list[int]] = {}

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until either side closes it."""
        self._connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (HttpSyntaxError, OSError):
            self._cut += 1
        except TimeoutError:
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(IDLE_S):
            head = await read_head(reader)
        if head is None:
            return False
        exchange = Exchange(
            app_name=self._name, head=head, reader=reader, writer=writer, scripts=self._scripts
        )
        exchange.keep_alive = "close" not in head.get("connection").lower() and head.third == "HTTP/1.1"
        path = exchange.path
        self._requests[path] = self._requests.get(path, 0) + 1
        if path == "/stats":
            counts = {"requests": self._requests, "connections": self._connections, "cut": self._cut}
            await exchange.reply_json(200, {**counts, "scripts": self._scripts})
        else:
            await ENDPOINTS.get(path, echo)(exchange)
        if not exchange.has_read and exchange.keep_alive:
            async for _ in exchange.body():
                pass
        return exchange.keep_alive


async def main(arguments: list[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="app")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    app = App(options.name)
    server = await asyncio.start_server(
        app.serve_connection, options.host, options.port, limit=MAX_HEAD_BYTES
    )
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
