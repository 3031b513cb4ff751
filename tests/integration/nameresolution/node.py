"""One process that announces and looks up, driven by lines on stdin; the tests start it in network namespaces."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from nameresolution.directory import Directory
from nameresolution.host_registry import HostRegistry
from nameresolution.resolver import AppName, EndpointSet, Instance
from nameresolution.resolvers import Surroundings, build
from proxy.wire.http_client import request


def say(**words: object) -> None:
    """One JSON line to the test."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def on_set(found: EndpointSet) -> None:
    """Report what the directory pushed."""
    endpoints = [endpoint.address for endpoint in found.endpoints]
    say(
        name=found.name.app_id,
        namespace=found.name.namespace,
        endpoints=endpoints,
        stale=found.stale,
        tried=list(found.tried),
    )


async def obey(directory: Directory, words: list[str]) -> None:
    """Carry out one line."""
    match words:
        case ["announce", app_id, host, port, instance]:
            await directory.announce(
                Instance(
                    app_id=app_id,
                    namespace="default",
                    host=host,
                    port=int(port),
                    instance=instance,
                    app_port=8080,
                    http_port=int(port) + 1,
                )
            )
            say(done="announce")
        case ["withdraw"]:
            await directory.withdraw()
            say(done="withdraw")
        case ["identify", mesh]:
            directory.identify("", mesh)
        case ["want", app_id]:
            app, _, namespace = app_id.partition(".")
            directory.want(AppName(app, namespace or "default"))
        case _:
            say(error=words)


async def main(root: str, component: str, configuration: str) -> None:
    """Run until stdin ends."""
    registry = HostRegistry(Path(root))
    surroundings = Surroundings(namespace="default", registry=registry, request=request)
    directory = Directory(build(component, json.loads(configuration), surroundings))
    directory.subscribe(on_set)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(directory.run())
        await directory.wait_running()
        say(done="start")
        while line := await lines.readline():
            await obey(directory, line.decode().split())
        running.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
