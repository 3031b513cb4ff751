"""One sidecar in the test's own loop: what it opens, what it says of itself, how it leaves."""

import asyncio
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from policies.reloading.reader_process import Loading
from proxy.api.server import LocalHttp, LocalRequest
from proxy.app import Sidecar
from proxy.control.lifetime import Lifetime
from proxy.control.policy_sources import policy_sources
from proxy.errors import ListenError
from proxy.settings.parsing import parse
from proxy.settings.values import OwnPort, PortWish, Settings
from proxy.wire.http_client import LocalResponse
from sentry.local import LocalPaths
from telemetry.failures import leaves
from tests.integration.app_watch.servers import V1, Script, grpc_server, listed, reflection
from tests.integration.sentry.process import end_local
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.ports import free_port

ANY = PortWish(0)
LISTEN = "127.0.0.1"


@pytest.fixture
def root() -> Iterator[Path]:
    """A runtime root with a short path: unix sockets end at 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="pside-"))
    yield folder
    if LocalPaths(root=folder).pid.exists():
        end_local(folder)
    shutil.rmtree(folder, ignore_errors=True)


def settings_of(root: Path, *flags: str, **changes: Any) -> Settings:
    """A plain sidecar of profile dev on free ports, quick to leave."""
    named = () if "--app-id" in flags else ("--app-id", "web")
    made = parse([*named, "--profile", "dev", *flags], {"POSTERN_HOME": str(root)})
    ports = {"http_port": ANY, "grpc_port": ANY, "peer_port": ANY, "metrics_port": ANY, "public_port": ANY}
    listen = {"listen_addresses": (LISTEN,), "public_listen_address": LISTEN, "peer_listen_address": LISTEN}
    return replace(
        made, **{**ports, **listen, "drain_s": 0.0, "mtls": False, "graceful_shutdown_s": 1.0, **changes}
    )


@dataclass(frozen=True)
class Running:
    """A sidecar that listens, and what it said once it did."""

    ports: dict[str, Any]  # None where there is none
    upstreams: dict[str, int]
    socket: str
    lifetime: Lifetime

    async def admin(self, target: str, method: str = "GET") -> Response:
        return await request(0, method, target, unix=self.socket)

    async def status(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((await self.admin("/status")).body)
        return content


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Run until the block ends, or until the sidecar does."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as told, Lifetime(writing, supervised=False) as lifetime:
        sidecar = Sidecar(settings, lifetime, Loading(policy_sources(settings)))
        async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(sidecar.run())
            line = await asyncio.to_thread(told.readline)
            facts: dict[str, Any] = {"ports": {}, "upstreams": {}, "adminSocket": ""}
            facts |= json.loads(line or "{}")
            yield Running(facts["ports"], facts["upstreams"], facts["adminSocket"], lifetime)
            lifetime.stop("the test is over")
            assert await task == 0


async def test_sidecar_listens_says_so_and_leaves_nothing(root: Path) -> None:
    async with running(settings_of(root, upstreams=(OwnPort("cart", 0),))) as sidecar:
        assert set(sidecar.ports) == {"http", "grpc", "peer", "metrics", "public"}
        assert all(sidecar.ports.values())
        assert set(sidecar.upstreams) == {"cart"}
        for port in (sidecar.ports["http"], sidecar.ports["public"]):
            assert (await request(port, "GET", "/v1.0/healthz/outbound")).status == 204
        status = await sidecar.status()
        assert status["ports"] | {"app": None} == sidecar.ports | {"app": None}
        assert (status["appId"], status["shutdown"], status["ready"]) == ("web", "serving", True)
        assert status["identity"]["state"] == "off"
    assert not list((root / "run").iterdir())


async def test_api_and_metrics_answer_through_the_engine(root: Path) -> None:
    async with running(settings_of(root)) as sidecar:
        http, metrics = sidecar.ports["http"], sidecar.ports["metrics"]
        assert (await request(http, "PUT", "/v1.0/metadata/colour", body=b"green")).status == 204
        found = json.loads((await request(http, "GET", "//v1.0/metadata/")).body)
        assert found["extended"]["colour"] == "green"
        text = (await request(metrics, "GET", "/metrics")).body.decode()
        assert "postern_plan_cache_total" in text
        assert "postern_policy_generation 1" in text
        assert json.loads((await sidecar.admin("/endpoints")).body) == {}


async def test_shutdown_over_the_api_ends_the_sidecar(root: Path) -> None:
    async with running(settings_of(root)) as sidecar:
        assert (await request(sidecar.ports["http"], "POST", "/v1.0/shutdown")).status == 204
        assert await sidecar.lifetime.stop_asked() == "shutdown API"


async def test_taken_port_is_passed_over_only_where_that_was_said(root: Path) -> None:
    with socket.create_server((LISTEN, 0)) as taken:
        number = taken.getsockname()[1]
        async with running(settings_of(root, metrics_port=PortWish(number, fallback=True))) as sidecar:
            assert sidecar.ports["metrics"] not in {0, number}
        for name in ("http_port", "metrics_port", "peer_port"):
            with pytest.raises(ExceptionGroup) as caught:
                async with running(settings_of(root, **{name: PortWish(number)})):
                    await asyncio.Event().wait()
            (cause,) = leaves(caught.value)
            assert isinstance(cause, ListenError)
            assert str(number) in str(cause)


async def test_api_on_unix_sockets_has_no_ports(root: Path) -> None:
    folder = root / "api"
    folder.mkdir()
    async with running(settings_of(root, unix_domain_socket=folder)) as sidecar:
        assert (sidecar.ports["http"], sidecar.ports["grpc"]) == (None, None)
        path = str(folder / "dapr-web-http.socket")
        assert (await request(0, "GET", "/v1.0/healthz/outbound", unix=path)).status == 204


async def test_services_that_the_app_reflects_become_routes(root: Path) -> None:
    script = Script(listed("shop.Web"))
    async with grpc_server(reflection(V1, script)) as port:
        settings = settings_of(root, "--app-port", str(port), "--app-protocol", "grpc")
        async with running(settings) as sidecar:
            status = await until(sidecar, lambda status: status["routes"])
    assert status["routes"] == ["shop.Web=web (learnt)"]
    about = {"port": port, "protocol": "grpc", "healthy": None, "open": True, "state": "listening"}
    assert about.items() <= status["app"].items()


async def test_registry_entry_that_could_not_be_written_is_written_later(root: Path) -> None:
    port = free_port()
    settings = settings_of(root, "--app-port", str(port), "--app-protocol", "grpc")
    async with running(settings) as sidecar:
        (entry,) = (root / "registry").glob("*.json")
        in_the_way = entry.with_name(f".{entry.name}.tmp")
        in_the_way.mkdir()
        async with grpc_server(reflection(V1, Script(listed("shop.Web"))), port=port):
            before = await until(sidecar, lambda status: status["app"]["open"])
            assert before["routes"] == []
            in_the_way.rmdir()
            after = await until(sidecar, lambda status: status["routes"])
    assert after["routes"] == ["shop.Web=web (learnt)"]


async def until(sidecar: Running, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first status of a sidecar that meets a condition; `running` has the deadline."""
    while not condition(status := await sidecar.status()):  # noqa: ASYNC110 - it is asked as users ask it
        await asyncio.sleep(0.02)
    return status


async def test_call_crosses_two_sidecars_under_identities_of_a_local_sentry(root: Path) -> None:
    async def answer(asked: LocalRequest) -> LocalResponse:
        headers = dict(asked.headers)
        return LocalResponse(200, (), headers[b"dapr-caller-app-id"] + b" asks for " + asked.target.encode())

    app = LocalHttp(answer)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(app.run())
        port = (await app.serve(f"{LISTEN}:0")).rpartition(":")[2]
        name = f"cart-{secrets.token_hex(4)}"  # multicast is the whole machine's: another `cart` may be about
        callee = settings_of(root, "--app-id", name, "--app-port", port, mtls=True)
        async with running(settings_of(root, mtls=True)) as web, running(callee) as cart:
            identity = (await until(cart, lambda status: status["ready"]))["identity"]
            assert (identity["state"], identity["spiffeId"]) == ("held", f"spiffe://public/ns/default/{name}")
            await until(web, lambda status: status["ready"])
            found = await request(web.ports["http"], "GET", f"/v1.0/invoke/{name}/method/items?x=1")
            assert (found.status, found.body) == (200, b"web asks for /items?x=1")
            (known,) = json.loads((await web.admin(f"/endpoints?app={name}")).body).values()
            assert [end["address"] for end in known["endpoints"]] == [f"{LISTEN}:{cart.ports['peer']}"]
            metrics = (await request(web.ports["metrics"], "GET", "/metrics")).body.decode()
            assert 'postern_cert_expiry_timestamp_seconds{kind="workload"}' in metrics
            assert "postern_resolver_endpoints" in metrics
        serving.cancel()


RULES = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec: {accessControl: {defaultAction: %s}}
"""


async def test_changed_rules_are_taken_up_and_bad_ones_are_not(root: Path) -> None:
    file = root / "config.yaml"
    file.write_text(RULES % "allow")
    async with running(settings_of(root, config_paths=(file,))) as sidecar:
        assert (await sidecar.status())["policy"]["generation"] == 1
        file.write_text(RULES % "perhaps")
        policy = (await until(sidecar, lambda status: status["policy"]["lastError"]))["policy"]
        assert policy["generation"] == 1
        assert "config.yaml" in policy["lastError"]
        file.write_text(RULES % "deny")
        policy = (await until(sidecar, lambda status: status["policy"]["generation"] > 1))["policy"]
        assert policy["lastError"] is None
