"""Sidecars that are not there: registered in a runtime root, with admin sockets that answer what a test wrote. `python -m` runs forty.

For what real ones can't be made to say: any app-id, any path, any number.
"""

import asyncio
import json
import math
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from nameresolution.host_registry import Entry, HostRegistry
from proxy.api.server import LocalHttp, LocalRequest
from proxy.wire.http_client import LocalResponse, LocalStream

BOUNDS_S: Final = tuple(0.0001 * 2**number for number in range(18))
Json = dict[str, Any]
#: caller, callee, calls a second, share that fails, seconds that most take
Edge = tuple[str, str, float, float, float]


class FakeSidecar:
    """One of them. `pages`: its answers by path, to be changed at will; `calls`: what its tap tells once."""

    def __init__(self, app_id: str, number: int) -> None:
        self.app_id = app_id
        self.instance = f"fake{number:028x}"
        self.pages: dict[str, Json] = {
            "/postern/v1/edges": {
                "mtls": True,
                "connections": 2,
                "window_s": 60.0,
                "bounds_s": BOUNDS_S,
                "spiffe_id": spiffe_id(app_id),
                "routes": [],
            },
            "/status": _status(app_id, self.instance),
            "/metadata": {"id": app_id, "extended": {}},
            "/endpoints": {},
            "/settings": {"settings": []},
            "/trace": {"traceId": "", "spans": []},
        }
        self.calls: list[Json] = []

    @property
    def routes(self) -> list[Json]:
        """What it tells of its routes."""
        found: list[Json] = self.pages["/postern/v1/edges"]["routes"]
        return found

    async def answer(self, request: LocalRequest) -> LocalResponse | LocalStream:
        """One question."""
        path = request.target.partition("?")[0]
        if path == "/postern/v1/tap":
            return LocalStream(self._tap())
        page = self.pages.get(path)
        return LocalResponse(404) if page is None else LocalResponse(200, body=json.dumps(page).encode())

    async def _tap(self) -> AsyncGenerator[bytes]:
        yield json.dumps({"event": "open"}).encode() + b"\n"
        for call in self.calls:
            yield json.dumps(call).encode() + b"\n"
        await asyncio.get_running_loop().create_future()


def spiffe_id(app_id: str) -> str:
    """Whom its certificate names."""
    return f"spiffe://public/ns/default/{app_id}"


def _status(app_id: str, instance: str) -> Json:
    return {
        "appId": app_id,
        "instance": instance,
        "pid": os.getpid(),
        "version": "0",
        "engine": "native",
        "ready": True,
        "notReady": [],
        "startedAt": time.time() - 100,
        "ports": {"http": 3500},
        "identity": {"mtls": True, "state": "held", "spiffeId": spiffe_id(app_id), "secondsLeft": 2_000},
        "app": {"port": 8080, "protocol": "http", "state": "listening", "healthy": True, "announced": True},
        "policy": {"generation": 1, "files": [], "warnings": [], "lastError": None},
        "engineStats": {
            "connections": 2,
            "callsInFlight": 1,
            "plansKept": 3,
            "upstreamConnections": 2,
            "threads": 1,
        },
        "exporters": [],
        "services": [],
        "shutdown": "serving",
    }


def route(src: str, dst: str, *, rps: float, code_class: str, took_s: float, path: str = "") -> Json:
    """A route as the caller's sidecar tells it."""
    counts = [0] * (len(BOUNDS_S) + 1)
    calls = round(rps * 60)
    bucket = min(max(math.ceil(math.log2(took_s / BOUNDS_S[0])), 0), len(BOUNDS_S))
    counts[bucket] = calls - calls // 10
    counts[min(bucket + 2, len(BOUNDS_S))] += calls // 10
    return {
        "direction": "outbound",
        "src": f"{src}.default",
        "dst": f"{dst}.default",
        "protocol": "http",
        "method": "GET",
        "path": path,
        "code_class": code_class,
        "peer": spiffe_id(dst),
        "calls": counts,
        "recent": counts,
        "last_seen": time.time(),
    }


@asynccontextmanager
async def fake_sidecars(root: Path, names: Sequence[str]) -> AsyncIterator[Mapping[str, FakeSidecar]]:
    """Register and serve one for each name."""
    registry = HostRegistry(root)
    (root / "run").mkdir(parents=True, exist_ok=True)
    found: dict[str, FakeSidecar] = {}
    async with asyncio.TaskGroup() as tasks:
        running = []
        for number, name in enumerate(names):
            fake = found[name] = FakeSidecar(name, number)
            server = LocalHttp(fake.answer)
            address = await server.serve(f"unix:{root / 'run' / str(number)}")
            running.append(tasks.create_task(server.run()))
            entry = Entry(
                app_id=name,
                instance=fake.instance,
                peer_port=1,
                pid=os.getpid(),
                admin_socket=address.removeprefix("unix:"),
                started_at=time.time() - 100,
            )
            registry.register(entry)
        try:
            yield found
        finally:
            for task in running:
                task.cancel()


def tell(fakes: Mapping[str, FakeSidecar], edges: Sequence[Edge]) -> None:
    """Have callers tell of edges."""
    for src, dst, rps, failing, took_s in edges:
        routes = fakes[src].routes
        routes.append(route(src, dst, rps=rps * (1 - failing), code_class="2xx", took_s=took_s))
        if failing:
            routes.append(route(src, dst, rps=rps * failing, code_class="5xx", took_s=took_s * 3))


async def _forty(root: Path) -> None:
    chance = random.Random(7)
    layers = [
        ["web", "mobile", "partner-api"],
        ["frontend", "graphql", "login", "search"],
        [
            f"{name}"
            for name in (
                "cart",
                "catalog",
                "checkout",
                "account",
                "review",
                "ads",
                "recommend",
                "wishlist",
                "promo",
            )
        ],
        [
            f"{name}-svc"
            for name in (
                "price",
                "stock",
                "tax",
                "shipping",
                "payment",
                "address",
                "loyalty",
                "mail",
                "sms",
                "image",
            )
        ],
        [
            "currency",
            "fraud",
            "ledger",
            "warehouse",
            "carrier",
            "template",
            "audit",
            "quota",
            "geo",
            "feature-flags",
        ],
        ["metrics-relay", "batch", "nightly", "a-really-long-application-name"],
    ]
    names = [name for layer in layers for name in layer]
    edges: list[Edge] = []
    for number, layer in enumerate(layers[:-2]):
        for name in layer:
            wanted = chance.sample(layers[number + 1], 2) + (
                [chance.choice(layers[min(number + 2, 4)])] if chance.random() < 0.4 else []
            )
            edges += [
                (
                    name,
                    other,
                    10 ** chance.uniform(-1, 2.5),
                    chance.choice([0] * 12 + [0.02, 0.1]),
                    10 ** chance.uniform(-3, -1),
                )
                for other in dict.fromkeys(wanted)
            ]
    async with fake_sidecars(root, names) as fakes:
        tell(fakes, edges)
        fakes["stock-svc"].pages["/status"]["ready"] = False
        fakes["stock-svc"].pages["/status"]["notReady"] = ["identity"]
        sys.stdout.write(f"{len(names)} sidecars in {root}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_forty(Path(sys.argv[1])))
