"""An HTTP app that can be slow, fail and be short of capacity: `python -m tests.chaos.unsteady_app [--name NAME]`.

Prints one JSON line `{"port": N}` once it listens. Any request is answered with its name, as its mode says, of which `POST /mode` sets
the fields that its JSON has, and but `GET /seen`, which tells how many those were.
"""

import argparse
import asyncio
import json
import random
import sys
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from tests.support.errors import HttpSyntaxError
from tests.support.http_wire import MAX_HEAD_BYTES, Headers, format_head, read_body, read_head

_ANSWER: Final[Headers] = [("content-type", "text/plain")]


class Mode(Struct, frozen=True, kw_only=True):
    """delay_ms: before each answer. error_share: of answers that are 503, by a seeded draw. at_once: requests that it works on, the
    others wait."""

    delay_ms: float = 0.0
    error_share: float = 0.0
    at_once: int = 10_000


class App:
    """Mutable state: the mode, how many came, and how many are being worked on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._mode = Mode()
        self._random = random.Random(name)
        self._seen = 0
        self._working = 0
        self._left = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while (head := await read_head(reader)) is not None:
                body = b"".join([part async for part in read_body(reader, head, [])])
                if head.second == "/mode":
                    self._mode = replace(self._mode, **json.loads(body))
                status = 200 if head.second in {"/mode", "/seen"} else await self._work()
                text = (str(self._seen) if head.second == "/seen" else self._name).encode()
                writer.write(
                    format_head(f"HTTP/1.1 {status} Status", [*_ANSWER, ("content-length", str(len(text)))])
                    + text
                )
                await writer.drain()
        except (HttpSyntaxError, OSError):
            pass
        finally:
            writer.close()

    async def _work(self) -> int:
        self._seen += 1
        async with self._left:
            await self._left.wait_for(lambda: self._working < self._mode.at_once)
            self._working += 1
        try:
            await asyncio.sleep(self._mode.delay_ms / 1_000)
        finally:
            async with self._left:
                self._working -= 1
                self._left.notify_all()
        return 503 if self._random.random() < self._mode.error_share else 200


async def main(arguments: list[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="app")
    app = App(parser.parse_args(arguments).name)
    server: Any = await asyncio.start_server(app.serve, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
