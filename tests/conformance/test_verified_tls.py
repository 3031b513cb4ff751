"""TLS to servers outside of the mesh: whose certificate is believed, and what is wrong with it otherwise, in the same words."""

import json
import ssl
from datetime import timedelta

import pytest

from proxy.contract.engine import Cluster, Upstream, VerifiedTls
from proxy.contract.plan import Cause, Edit, Op, Route
from tests.conformance.harness import EDITS, LOCAL_REPLIES, Node, always, plan, running
from tests.support.http_client import connect
from tests.support.http_wire import Response
from tests.support.web_pki import WebCa
from tests.support.web_server import web_server

CA, STRANGERS, CLIENTS = WebCa(), WebCa("a stranger's root"), WebCa("clients' root")


def push(node: Node, port: int, *, name: str = "localhost", roots: bytes = b"", **material: bytes) -> None:
    """The cluster of a server on loopback."""
    tls = VerifiedTls(name=name, roots_pem=roots or CA.root_pem, **material)
    where = Upstream(address=f"127.0.0.1:{port}")
    node.engine.set_cluster(Cluster(key="app", wire="http1", tls=tls, upstreams=(where,)))


async def call(node: Node, server: ssl.SSLContext, **pushed: object) -> Response:
    """A call of a server through the engine."""
    async with web_server(server) as port:
        push(node, port, **pushed)  # type: ignore[arg-type]
        async with connect(await node.listen(always(plan()), name=f"to {port}")) as caller:
            return await caller.request("GET", "/echo")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "sub.test.example"])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_server_of_the_name_is_believed(engine: str, name: str, newest: ssl.TLSVersion) -> None:
    server = CA.server_context("localhost", "127.0.0.1", "*.test.example", newest=newest)
    async with running(engine) as node:
        assert (await call(node, server, name=name)).status == 200


@pytest.mark.parametrize(
    ("server", "pushed", "words"),
    [
        (CA.server_context("localhost"), {"name": "other"}, "its certificate is not for other"),
        (CA.server_context("localhost"), {"name": "127.0.0.1"}, "its certificate is not for 127.0.0.1"),
        (
            CA.server_context("*.test.example"),
            {"name": "a.b.test.example"},
            "its certificate is not for a.b.test.example",
        ),
        (STRANGERS.server_context("localhost"), {}, "its certificate is signed by no trusted root"),
        (
            CA.server_context("localhost", life=timedelta(hours=-1)),
            {},
            "its certificate has expired, or is not valid yet",
        ),
    ],
)
async def test_server_that_is_not_believed_gets_no_request(
    engine: str, server: ssl.SSLContext, pushed: dict[str, object], words: str
) -> None:
    async with running(engine) as node:
        response = await call(node, server, **pushed)
        assert response.get("postern-error") == Cause.TLS_IDENTITY.value
        assert json.loads(response.body)["message"] == f"tls-identity: {words}"
        assert node.seen.upstream_failures == [words]


async def test_certificate_of_ours_is_shown_to_who_asks(engine: str) -> None:
    chain, key = CLIENTS.leaf()
    server = CA.server_context("localhost", clients=CLIENTS)
    async with running(engine) as node:
        assert (await call(node, server, chain_pem=chain, key_pem=key)).status == 200


async def test_connection_made_under_other_roots_is_not_used(engine: str) -> None:
    async with running(engine) as node, web_server(CA.server_context("localhost")) as port:
        push(node, port)
        async with connect(await node.listen(always(plan()))) as caller:
            assert (await caller.request("GET", "/echo")).status == 200
            push(node, port, roots=STRANGERS.root_pem)
            assert (await caller.request("GET", "/echo")).get("postern-error") == "tls-identity"
            push(node, port)
            assert (await caller.request("GET", "/echo")).status == 200


@pytest.mark.parametrize(
    ("edits", "arrives"),
    [
        ((), "/base/x?q=1"),
        ((Edit(op=Op.PATH, data=b"/moved/../%2e%2e/y?n=2"),), "/base/y?n=2&q=1"),
        ((Edit(op=Op.DAPR_PATH, data=b"whole"),), "/base/x?q=1"),
    ],
)
async def test_path_is_put_below_the_base(engine: str, edits: tuple[Edit, ...], arrives: str) -> None:
    made = (*EDITS, Edit(op=Op.BASE, data=b"/base"), *edits)
    decision = plan(routes=(Route(cluster="app", edits=made),), local_replies=LOCAL_REPLIES)
    async with running(engine) as node, web_server() as port:
        node.cluster("app", port)
        async with connect(await node.listen(always(decision))) as caller:
            response = await caller.request("GET", "/a/..%2F../x?q=1")
    assert json.loads(response.body)["target"] == arrives
