"""Identity between real proxies: renewal in place, a sentry that is away, strangers at the peer port, keys, plaintext by wish."""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import pytest_asyncio

from nameresolution.host_registry import HostRegistry
from nameresolution.registry_resolver import why_not_serving
from sentry.join import mint
from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import (
    Forge,
    h2_head,
    h2_request,
    plain_context,
)
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.readiness import OUTBOUND_HEALTH, wait_status

SENTRY_ID = "spiffe://localhost/ns/default/dapr-sentry"
SHORT = ("--workload-cert-ttl", "3s", "--allowed-clock-skew", "2s")
TO_CART = "/v1.0/invoke/cart/method/echo"


def spiffe(app_id: str) -> str:
    """The id of an app in the default namespace."""
    return f"spiffe://public/ns/default/{app_id}"


def join_environment(mesh: Mesh, app_id: str) -> dict[str, str]:
    """What a sidecar needs for a sentry that is not its own runtime root's: anchors, and a token of its own."""
    token = mesh.write(f"{app_id}.token", mint(mesh.root, spiffe(app_id), SENTRY_ID))
    anchors = (mesh.root / "sentry" / "authority" / "ca.crt").read_text()
    return {"DAPR_TRUST_ANCHORS": anchors, "DAPR_SENTRY_TOKEN_FILE": str(token)}


def message(answer_body: bytes) -> str:
    """The message of an error answer."""
    return str(json.loads(answer_body)["message"])


def held(sidecar: Sidecar) -> int:
    """How many identities the sidecar has had."""
    return len(re.findall(r"SVID \S+ received", sidecar.process.output))


async def wait_held(sidecar: Sidecar, times: int, timeout_s: float = 60.0) -> None:
    """Wait until the sidecar has had so many identities."""
    async with asyncio.timeout(timeout_s):
        while held(sidecar) < times:  # noqa: ASYNC110 - a line that comes again can only be counted
            await asyncio.sleep(0.05)


async def identity_of(sidecar: Sidecar) -> dict[str, Any]:
    """What `/status` says of the identity."""
    found = (await sidecar.status())["identity"]
    assert isinstance(found, dict)
    return found


async def app_of(sidecar: Sidecar) -> dict[str, Any]:
    """What `/status` says of the app."""
    found = (await sidecar.status())["app"]
    assert isinstance(found, dict)
    return found


# --- renewal -----------------------------------------------------------------------------------------------------------------


class Traffic:
    """Calls of all kinds, one after the other, until told to stop; counts successes, and fails with the first failure."""

    def __init__(self, web: Sidecar) -> None:
        self._web = web
        self.stopping = asyncio.Event()
        self.done = {"http": 0, "unary": 0, "bidi": 0, "events": 0}

    async def http(self) -> None:
        async with connect(self._web.http_port) as connection:
            while not self.stopping.is_set():
                answer = await connection.request("GET", TO_CART)
                assert answer.status == 200, answer.body
                self.done["http"] += 1
                await asyncio.sleep(0.01)

    async def events(self) -> None:
        async with connect(self._web.http_port) as connection:
            await connection.send_head("GET", "/v1.0/invoke/cart/method/sse?n=100000&every_s=0.05")
            head = await connection.read_response_head()
            async for _ in connection.body("GET", head, []):
                self.done["events"] += 1
                if self.stopping.is_set():
                    return

    async def unary(self) -> None:
        async with grpc.aio.insecure_channel(f"localhost:{self._web.grpc_port}") as channel:
            client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),))
            while not self.stopping.is_set():
                await client.unary(EchoRequest(message="x"))
                self.done["unary"] += 1
                await asyncio.sleep(0.01)

    async def bidi(self) -> None:
        async with grpc.aio.insecure_channel(f"localhost:{self._web.grpc_port}") as channel:
            call = EchoClient(channel, metadata=(("dapr-app-id", "echo"),)).bidi(timeout_s=110.0)
            while not self.stopping.is_set():
                await call.write(EchoRequest(message="m"))
                reply = await call.read()
                assert reply is not grpc.aio.EOF  # type: ignore[attr-defined] # grpc-stubs lacks it
                self.done["bidi"] += 1
                await asyncio.sleep(0.05)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
            assert await call.code() is grpc.StatusCode.OK


@pytest.mark.serial  # certificates of six seconds expire where the processor is away half that long
async def test_second_long_identities_are_renewed_under_traffic_even_by_a_sentry_started_anew(
    mesh: Mesh, http_app: App, grpc_app: App
) -> None:
    sentry = await mesh.start_sentry("--workload-cert-ttl", "6s", "--allowed-clock-skew", "2s")
    async with asyncio.TaskGroup() as starting:
        callees = [
            starting.create_task(mesh.sidecar("cart", app=http_app)),
            starting.create_task(mesh.sidecar("echo", app=grpc_app)),
        ]
        start = starting.create_task(mesh.sidecar("web"))
    web = start.result()
    traffic = Traffic(web)
    try:
        async with asyncio.TaskGroup() as tasks:
            for kind in (traffic.http, traffic.events, traffic.unary, traffic.bidi):
                tasks.create_task(kind())
            await wait_held(web, 4)
            short = await identity_of(web)
            sentry.kill()
            await wait_held(web, held(web) + 1)
            traffic.stopping.set()
        assert min(traffic.done.values()) > 10, traffic.done
        assert short["state"] in ("held", "renewing")
        assert 0 < short["secondsLeft"] <= 6
        assert short["lastError"] is None
        assert (await identity_of(web))["secondsLeft"] > 60  # a sidecar's own sentry signs for an hour
    finally:
        async with asyncio.TaskGroup() as ending:  # first: each of them starts a sentry where there is none
            for sidecar in (web, *(callee.result() for callee in callees)):
                ending.create_task(sidecar.end())
        end_started_sentry(mesh)


def end_started_sentry(mesh: Mesh) -> None:
    """End the sentry that a sidecar of this mesh started: it is nobody's child."""
    process = psutil.Process(int((mesh.root / "sentry" / "sentry.pid").read_text()))
    assert str(mesh.root) in process.cmdline()
    process.terminate()
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(10.0)


# --- another sentry, or none -------------------------------------------------------------------------------------------------


async def test_sentry_out_of_reach_is_said_and_survived_at_start_and_later(mesh: Mesh) -> None:
    port = free_port()
    at = (*SHORT, "--port", str(port), "--listen-address", "127.0.0.1")
    sentry = await mesh.start_sentry(*at)
    environment = join_environment(mesh, "cart")
    await sentry.end()
    cart = await mesh.sidecar(
        "cart",
        flags=("--sentry-address", f"127.0.0.1:{port}"),
        env=environment,
        until_ready=False,
        with_sentry=False,
    )
    await cart.process.line("not renewed")
    health = await request(cart.http_port, "GET", OUTBOUND_HEALTH)
    assert health.status == 500
    assert "identity" in message(health.body)
    identity = await identity_of(cart)
    assert identity["state"] == "pending"
    assert f"127.0.0.1:{port}" in identity["lastError"]
    assert await is_refused(cart.peer_port, None)
    assert await is_refused(cart.peer_port, plain_context())
    await mesh.start_sentry(*at)
    await asyncio.to_thread(wait_status, cart.http_port, OUTBOUND_HEALTH, 204, cart.process)
    identity = await identity_of(cart)
    assert identity["state"] == "held"
    assert identity["lastError"] is None
    # Gone once more: the identity held serves on, status tells, and a new sentry is found again.
    assert mesh.sentry is not None
    mesh.sentry.kill()
    async with asyncio.timeout(45.0):
        while (await identity_of(cart))["lastError"] is None:  # noqa: ASYNC110 - a process has no events
            await asyncio.sleep(0.05)
    assert f"127.0.0.1:{port}" in (await identity_of(cart))["lastError"]
    # Once it has ended callers are no longer told of this instance, until it is renewed.
    await cart.process.line("not announced until the certificate is renewed")
    entry = next(entry for entry in HostRegistry(mesh.root).entries() if entry.app_id == "cart")
    assert (entry.serving, entry.expired) == (False, True)
    assert "its certificate has expired" in why_not_serving(entry)
    before = held(cart)
    rewrite(
        environment["DAPR_SENTRY_TOKEN_FILE"], mint(mesh.root, spiffe("cart"), SENTRY_ID)
    )  # it serves once
    await mesh.start_sentry(*at)
    await wait_held(cart, before + 1)
    async with asyncio.timeout(30.0):
        while not (await app_of(cart))["announced"]:  # noqa: ASYNC110 - a process has no events
            await asyncio.sleep(0.02)
    entry = next(entry for entry in HostRegistry(mesh.root).entries() if entry.app_id == "cart")
    assert (entry.serving, entry.expired) == (True, False)


def rewrite(path: str, text: str) -> None:
    """Replace a file's content, as who refreshes tokens does."""
    Path(path).write_text(text)


async def test_external_sentry_with_a_join_token_makes_one_mesh(mesh: Mesh, http_app: App) -> None:
    port = free_port()
    await mesh.start_sentry("--port", str(port), "--listen-address", "127.0.0.1")
    await mesh.sidecar("cart", app=http_app)
    web = await mesh.sidecar(
        "web", flags=("--sentry-address", f"127.0.0.1:{port}"), env=join_environment(mesh, "web")
    )
    answer = await request(web.http_port, "GET", TO_CART)
    assert answer.status == 200
    assert dict(json.loads(answer.body)["headers"])["dapr-caller-app-id"] == "web"


# --- strangers ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """A callee for strangers to knock at, and a friend who proves that it lives."""

    mesh: Mesh
    cart: Sidecar
    web: Sidecar


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def knock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Knock]:
    """One for the module; all temporary files in a folder of its own, and `basket` led to the wrong proxy."""
    async with Mesh(tmp_path_factory.mktemp("strangers")) as mesh:
        app = await mesh.http_app()
        (mesh.files / "tmp").mkdir()
        env = {"TMPDIR": str(mesh.files / "tmp")}
        cart = await mesh.sidecar("cart", app=app, env=env)
        (mesh.root / "endpoints.yaml").write_text(f"basket: 127.0.0.1:{cart.peer_port}\n")
        yield Knock(mesh=mesh, cart=cart, web=await mesh.sidecar("web", env=env))


async def still_serves(knock: Knock) -> None:
    """The callee lives and takes its friend's calls."""
    assert knock.cart.process.is_running
    assert (await request(knock.web.http_port, "GET", TO_CART)).status == 200


async def is_refused(port: int, context: ssl.SSLContext | None, callee: str = "cart.default") -> bool:
    """Whether a stranger's request gets no answer; a TLS alert or a reset is none."""
    try:
        answer = await h2_request(port, h2_head("GET", "/echo", authority=callee), context=context)
    except (ssl.SSLError, ConnectionError):
        return True
    return answer.status == 0


@pytest.mark.parametrize(
    "stranger", ["no-certificate", "other-root", "ended", "plaintext", "reserved-path", "tls12"]
)
async def test_stranger_at_the_peer_port_is_refused_and_the_process_lives(
    knock: Knock, tmp_path: Path, stranger: str
) -> None:
    mesh, callee = knock.mesh, knock.cart
    own = Forge.of(mesh.root, tmp_path)
    web = SpiffeId("public", "default", "web")
    context: ssl.SSLContext | None
    if stranger == "no-certificate":
        context = plain_context()
    elif stranger == "other-root":
        context = Forge.stranger(tmp_path).context(web)
    elif stranger == "ended":
        context = own.context(web, ended=True)
    elif stranger == "reserved-path":
        context = own.raw_context("spiffe://public/ns/default/web/extra")
    elif stranger == "tls12":
        context = own.context(web)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        context = None
    assert await is_refused(callee.peer_port, context)
    await still_serves(knock)


@pytest.mark.parametrize(
    "uri", ["spiffe://public/foo", "https://public/ns/default/web", "spiffe://public/ns//web"]
)
async def test_certificate_without_a_workload_id_is_refused(knock: Knock, tmp_path: Path, uri: str) -> None:
    mesh, callee = knock.mesh, knock.cart
    assert await is_refused(callee.peer_port, Forge.of(mesh.root, tmp_path).raw_context(uri))
    await still_serves(knock)


def naming(*apps: tuple[str, str]) -> str:
    """A policy that allows by default, and names apps of trust domains."""
    entries = "".join(
        f"    - {{appId: {app}, trustDomain: {domain}, namespace: default, defaultAction: allow}}\n"
        for app, domain in apps
    )
    return f"kind: Configuration\nspec:\n  accessControl:\n    defaultAction: allow\n    policies:\n{entries}"


@pytest.mark.parametrize("engine", ENGINES)
async def test_foreign_trust_domain_is_let_in_once_a_policy_names_it(
    mesh: Mesh, http_app: App, tmp_path: Path, engine: str
) -> None:
    rules = mesh.write("shop.yaml", naming(("front", "public")))
    to_shop = mesh.write("front.yaml", naming(("shop", "shop.example")))
    abroad = ("--trust-domain", "shop.example", "--config", str(rules), "--engine", engine)
    await mesh.start_sentry()  # whose authority the stranger's certificate is made with
    async with asyncio.TaskGroup() as starting:
        shop = starting.create_task(mesh.sidecar("shop", app=http_app, flags=abroad))
        front = starting.create_task(
            mesh.sidecar("front", flags=("--config", str(to_shop), "--engine", engine))
        )
    # both ways: `shop` names its caller's trust domain, `front` that of its callee
    assert (await request(front.result().http_port, "GET", "/v1.0/invoke/shop/method/echo")).status == 200
    port = shop.result().peer_port
    stranger = Forge.of(mesh.root, tmp_path).context(SpiffeId("elsewhere", "default", "front"))
    assert await is_refused(port, stranger, "shop.default")
    await shop.result().process.line("trust domain elsewhere")
    mesh.write("shop.yaml", naming(("front", "public"), ("front", "elsewhere")))
    await shop.result().process.line("policies reloaded")
    assert not await is_refused(port, stranger, "shop.default")


async def test_certificate_of_the_mesh_is_let_in_and_names_the_caller(knock: Knock, tmp_path: Path) -> None:
    mesh, callee = knock.mesh, knock.cart
    context = Forge.of(mesh.root, tmp_path).context(SpiffeId("public", "default", "visitor"))
    head = [*h2_head("GET", "/echo", authority="cart.default"), ("dapr-caller-app-id", "admin")]
    answer = await h2_request(callee.peer_port, head, context=context)
    assert answer.status == 200
    names = [pair for pair in json.loads(answer.body)["headers"] if pair[0] == "dapr-caller-app-id"]
    assert names == [["dapr-caller-app-id", "visitor"]]


async def test_keys_are_in_no_file_but_sentrys(knock: Knock) -> None:
    mesh, callee, web = knock.mesh, knock.cart, knock.web
    await still_serves(knock)
    for folder in (mesh.root, mesh.files):
        for path in folder.rglob("*"):
            if path.is_file() and mesh.root / "sentry" not in path.parents:
                assert b"PRIVATE KEY" not in path.read_bytes(), path
    for sidecar in (callee, web):
        opened: list[Path] = []
        with contextlib.suppress(
            psutil.AccessDenied
        ):  # to root alone a process that holds keys shows what it has open
            opened += (Path(file.path) for file in psutil.Process(sidecar.process.pid).open_files())
        assert not [path for path in opened if path.exists() and b"PRIVATE KEY" in path.read_bytes()]
        assert "PRIVATE KEY" not in sidecar.process.output


# --- the wrong callee --------------------------------------------------------------------------------------------------------


async def test_callee_under_another_root_is_refused_by_name(mesh: Mesh, knock: Knock) -> None:
    foreign = knock.cart
    (mesh.root / "endpoints.yaml").write_text(f"cart: 127.0.0.1:{foreign.peer_port}\n")
    web = await mesh.sidecar("web")
    before = foreign.process.output.count("certificate")
    answer = await request(web.grpc_port, "POST", TO_CART, chunks=[b"x"])
    assert answer.status == 500
    assert answer.get("postern-error") == "tls-identity"
    said = message(answer.body)
    assert "expected spiffe://public/ns/default/cart" in said
    assert "certificate" in said
    assert foreign.process.output.count("certificate") >= before
    await still_serves(knock)


async def test_proxy_of_another_app_at_the_address_is_refused_by_name(knock: Knock) -> None:
    answer = await request(
        knock.web.http_port, "POST", "/echo", headers=[("Host", "basket.localhost")], chunks=[b"x"]
    )
    assert answer.status == 502
    assert answer.get("postern-error") == "tls-identity"
    assert f"expected {spiffe('basket')}, got {spiffe('cart')}" in message(answer.body)


# --- plaintext by wish -------------------------------------------------------------------------------------------------------


async def test_plaintext_pair_works_and_mixed_pairs_fail_saying_why(mesh: Mesh, http_app: App) -> None:
    plain = ("--insecure-plaintext",)
    own = mesh.root.name.removeprefix("pmesh-").replace("_", "-")  # plaintext meshes hear each other
    bare, proven = f"bare-{own}a", f"proven-{own}a"
    async with asyncio.TaskGroup() as starting:
        starting.create_task(mesh.sidecar(bare, app=http_app, flags=plain))
        proof = starting.create_task(mesh.sidecar(proven, app=http_app))
    forced = f"forced: 127.0.0.1:{proof.result().peer_port}\n"
    (mesh.root / "endpoints.yaml").write_text(forced)
    async with asyncio.TaskGroup() as starting:
        trusting = starting.create_task(mesh.sidecar("trusting", flags=plain))
        careful = starting.create_task(mesh.sidecar("careful"))

    async def ask(sidecar: Sidecar, callee: str) -> Response:
        return await request(sidecar.http_port, "POST", f"/v1.0/invoke/{callee}/method/echo", chunks=[b"x"])

    assert (await ask(trusting.result(), bare)).status == 200
    assert (await ask(careful.result(), proven)).status == 200
    identity = await identity_of(trusting.result())
    assert (identity["mtls"], identity["state"]) == (False, "off")
    before = json.loads((await request(http_app.port, "GET", "/stats")).body)["requests"]
    to_bare = await ask(careful.result(), bare)
    assert to_bare.status == 500
    assert "does not speak TLS; is it on at both ends (a daprd needs --enable-mtls)" in message(to_bare.body)
    to_proven = await ask(trusting.result(), proven)
    assert to_proven.status == 500
    assert "it uses mTLS and this sidecar does not" in message(to_proven.body)
    to_forced = await ask(trusting.result(), "forced")
    assert to_forced.status == 500
    assert "mutual TLS" in message(to_forced.body)
    after = json.loads((await request(http_app.port, "GET", "/stats")).body)["requests"]
    assert after["/echo"] == before["/echo"]
