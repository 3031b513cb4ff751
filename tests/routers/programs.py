"""The apps on web frameworks: how they are started, and which operation each request reaches in each of them."""

import asyncio
import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus

from tests.stock.programs import BUILT, JVM, NODE_INSTALL, NODE_TOOLS, Program
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import connect
from tests.support.http_wire import Response
from tests.support.processes import REPOSITORY, Processes

_BUILT: Final = BUILT / "routers"
_SOURCES: Final = REPOSITORY / "tests" / "routers"
_START_S: Final = 30.0
_CONNECTIONS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Apps:
    """A program, and the frameworks whose apps it serves."""

    program: Program
    frameworks: tuple[str, ...]


LIGHT: Final = {
    "go": Apps(
        program=Program(
            command=(str(_BUILT / "go" / "routers"),),
            built=_BUILT / "go" / "routers",
            tools=("go",),
            install="install Go 1.25 or newer",
        ),
        frameworks=("net-http", "gorilla", "gorilla-lenient"),
    ),
    "node": Apps(
        program=Program(
            command=("node", str(_BUILT / "node" / "routers.js")),
            built=_BUILT / "node" / "built",
            tools=NODE_TOOLS,
            install=NODE_INSTALL,
        ),
        frameworks=("express-4", "express-5", "fastify-4", "fastify-5", "fastify-5-lenient"),
    ),
    "python": Apps(
        program=Program(
            command=(sys.executable, str(_SOURCES / "python" / "routers.py")),
            modules=("flask", "starlette", "uvicorn", "waitress"),
        ),
        frameworks=("flask", "starlette"),
    ),
}
HEAVY: Final = {
    "java": Apps(
        program=Program(
            command=(*JVM, "-cp", f"{_BUILT}/java/classes:{_BUILT}/java/lib/*", "Routers"),
            built=_BUILT / "java" / "built",
            tools=("java", "mvn"),
            install="apt-get install openjdk-17-jdk-headless maven",
        ),
        frameworks=("spring", "spring-lenient", "tomcat-lenient"),
    ),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request reached: a route, and what the app takes its parameters or the file's folder to be."""

    route: str
    value: str = ""


async def serve(processes: Processes, apps: Apps) -> dict[str, int]:
    """Start a program; the port of each framework's app."""
    process = processes.start([*apps.program.command, str(_SOURCES / "files")], name=apps.frameworks[0])
    return {
        name: int((await process.line(rf"^serving {name} (\d+)$", timeout_s=_START_S))[1])
        for name in apps.frameworks
    }


def operation(answer: Response) -> Operation | None:
    """The operation that an answer tells of; None if none was reached. A file holds its own."""
    told = answer.get("operation") or (answer.body.decode() if answer.status == 200 else "")
    route, _, value = told.partition(" ")
    return Operation(route, unquote_plus(value)) if route else None


async def reached(port: int, heads: Mapping[str, bytes]) -> dict[str, Operation]:
    """The operation that each request reaches in one app, by the target, those that reach none left out."""
    answers = zip(heads, await ask(port, heads.values()), strict=True)
    found = {target: operation(answer) for target, answer in answers if answer is not None}
    return {target: told for target, told in found.items() if told is not None}


async def ask(port: int, heads: Iterable[bytes]) -> list[Response | None]:
    """Send GET requests whose heads are given as bytes, over a few connections; the answers, in order, None for a closed connection."""
    numbered = list(enumerate(heads))
    answers: list[Response | None] = [None] * len(numbered)
    waiting = iter(numbered)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CONNECTIONS):
            tasks.create_task(_ask_some(port, waiting, answers))
    return answers


async def _ask_some(port: int, waiting: Iterable[tuple[int, bytes]], answers: list[Response | None]) -> None:
    """Take requests from `waiting`, which others take from as well, until there are none; a connection that ends is opened again."""
    waiting = iter(waiting)
    for first in waiting:
        async with connect(port) as connection:
            for number, head in itertools.chain([first], waiting):
                try:
                    await connection.send(head)
                    answers[number] = answer = await connection.read_response("GET")
                except (HttpSyntaxError, ConnectionError):
                    break
                if answer.get("connection").lower() == "close":
                    break
