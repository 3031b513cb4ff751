"""Servers outside of the mesh behind an HTTP proxy: tunnels and whole URLs, credentials, and what is told when the proxy opens no way."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import pytest
from msgspec.structs import replace

from proxy.contract.engine import Cluster, Upstream, VerifiedTls, Via
from proxy.contract.plan import Cause, Edit, Op, Route
from tests.conformance.harness import EDITS, LOCAL_REPLIES, Node, always, plan, retry, running
from tests.conformance.test_websocket import upgrade
from tests.support.http_client import Connection, connect
from tests.support.http_wire import Response
from tests.support.ports import free_port
from tests.support.web_pki import WebCa
from tests.support.web_proxy import WebProxy, running_proxy
from tests.support.web_server import web_server
from tests.support.websocket import BINARY, TEXT, Frame, accept_key, format_frame, read_frame

Scheme = Literal["http", "https"]
SCHEMES: tuple[Scheme, ...] = ("http", "https")
CA, STRANGERS = WebCa(), WebCa("a stranger's root")
CREDENTIALS = b"Basic YWRhOnNlY3JldA=="
HOST = "api.example"  # nobody here could look it up
PORTS = {"http": 80, "https": 443}


class Way(NamedTuple):
    """A caller's connection to an engine that goes to the server through a proxy."""

    caller: Connection
    proxy: WebProxy
    node: Node
    cluster: Cluster
    port: int


@asynccontextmanager
async def through(
    engine: str,
    scheme: Scheme,
    *,
    proxy_tls: ssl.SSLContext | None = None,
    trusted: WebCa = CA,
    server: ssl.SSLContext | None = None,
    **fields: Any,
) -> AsyncIterator[Way]:
    """The whole way; the proxy proves that it is `localhost` where it has TLS."""
    edits = (*EDITS, Edit(op=Op.AUTHORITY, data=HOST.encode()))
    fields = {"routes": (Route(cluster="web", edits=edits),), "local_replies": LOCAL_REPLIES} | fields
    secure = server or CA.server_context(HOST)
    async with (
        web_server(secure if scheme == "https" else None) as port,
        running_proxy(port, proxy_tls) as proxy,
        running(engine) as node,
    ):
        tls = VerifiedTls(name="localhost", roots_pem=trusted.root_pem) if proxy_tls is not None else None
        cluster = Cluster(
            key="web",
            wire="http1",
            tls=VerifiedTls(name=HOST, roots_pem=CA.root_pem) if scheme == "https" else None,
            upstreams=(Upstream(address=f"{HOST}:{PORTS[scheme]}"),),
            who=f"the server at {HOST}:{PORTS[scheme]}",
            via=Via(address=proxy.address, authorization=CREDENTIALS, tls=tls),
        )
        node.engine.set_cluster(cluster)
        listening = await node.listen(always(plan(**fields)))
        async with connect(listening) as caller:
            yield Way(caller, proxy, node, cluster, listening)


def message(response: Response) -> str:
    """What the caller is told."""
    return str(json.loads(response.body)["message"])


async def test_server_with_tls_is_reached_through_a_tunnel(engine: str) -> None:
    async with through(engine, "https") as way:
        sent = [("Proxy-Authorization", "Basic theirs"), ("X-Other", "kept")]
        responses = [await way.caller.request("GET", "/echo?x=1", headers=sent) for _ in range(2)]
        outcome = await way.node.seen.outcome()
    content = json.loads(responses[0].body)
    headers = {name.lower(): value for name, value in content["headers"]}
    assert (content["target"], headers["x-other"], headers["host"]) == ("/echo?x=1", "kept", HOST)
    assert "proxy-authorization" not in headers
    assert [response.status for response in responses] == [200, 200]
    (head,) = way.proxy.asked  # the tunnel is kept
    assert (head.first, head.second, head.get("host")) == ("CONNECT", f"{HOST}:443", f"{HOST}:443")
    assert head.get_all("proxy-authorization") == [CREDENTIALS.decode()]
    assert outcome.attempts[0].endpoint == f"{HOST}:443"


@pytest.mark.parametrize(
    ("method", "target", "asked"),
    [
        ("GET", "/echo?x=1", f"http://{HOST}/echo?x=1"),
        ("GET", "http://other.example/echo?x=1", f"http://{HOST}/echo?x=1"),
        ("OPTIONS", "*", f"http://{HOST}"),
    ],
)
async def test_proxy_is_asked_for_whole_urls_without_tls(
    engine: str, method: str, target: str, asked: str
) -> None:
    async with through(engine, "http") as way:
        sent = [("Proxy-Authorization", "Basic theirs"), ("X-Other", "kept")]
        response = await way.caller.request(method, target, headers=sent)
    assert response.status == 200
    (head,) = way.proxy.asked
    assert (head.first, head.second, head.get("host"), head.get("x-other")) == (method, asked, HOST, "kept")
    assert head.get_all("proxy-authorization") == [CREDENTIALS.decode()]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_proxy_without_credentials_is_sent_none(engine: str, scheme: Scheme) -> None:
    async with through(engine, scheme) as way:
        assert way.cluster.via is not None
        bare = Via(address=way.cluster.via.address)
        way.node.engine.set_cluster(replace(way.cluster, via=bare))
        assert (await way.caller.request("GET", "/echo")).status == 200
    assert way.proxy.asked[0].get_all("proxy-authorization") == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_proxy_itself_may_speak_tls(engine: str, scheme: Scheme) -> None:
    async with through(engine, scheme, proxy_tls=CA.server_context("localhost")) as way:
        assert (await way.caller.request("GET", "/echo")).status == 200
        assert (await way.caller.request("POST", "/echo", body=b"x" * 300_000)).status == 200
    assert way.proxy.asked[0].first == ("CONNECT" if scheme == "https" else "GET")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_proxy_that_is_not_believed_is_asked_nothing(engine: str, scheme: Scheme) -> None:
    tls = CA.server_context("localhost")
    async with through(engine, scheme, proxy_tls=tls, trusted=STRANGERS) as way:
        response = await way.caller.request("GET", "/echo")
    assert way.proxy.asked == []
    at = f"the HTTP proxy at {way.proxy.address}"
    assert message(response) == f"connect: TLS with {at} failed: its certificate is signed by no trusted root"


async def test_server_behind_a_tunnel_proves_its_name(engine: str) -> None:
    async with through(engine, "https", server=CA.server_context("other.example")) as way:
        response = await way.caller.request("GET", "/echo")
    assert message(response) == f"tls-identity: its certificate is not for {HOST}"


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (407, ": it asks for another user and password, or for any (http://user:password@…)"),
        (403, ""),
        (502, ""),
    ],
)
async def test_refusal_of_a_tunnel_names_the_proxy_and_its_status(
    engine: str, status: int, hint: str
) -> None:
    async with through(engine, "https") as way:
        way.proxy.status = status
        response = await way.caller.request("GET", "/echo")
        outcome = await way.node.seen.outcome()
    told = f"the HTTP proxy at {way.proxy.address} answered CONNECT {HOST}:443 with status {status}{hint}"
    assert (response.status, response.get("postern-error")) == (502, "connect")
    assert message(response) == f"connect: {told}"
    assert way.node.seen.upstream_failures == [told]
    assert (outcome.cause, outcome.attempts[0].detail) == (Cause.CONNECT, told)


@pytest.mark.parametrize("status", [403, 502])
async def test_answer_for_a_whole_url_is_passed_on_whoever_made_it(engine: str, status: int) -> None:
    async with through(engine, "http") as way:
        way.proxy.status = status
        response = await way.caller.request("GET", "/echo")
    assert (response.status, response.get("postern-error")) == (status, "")


async def test_proxy_that_wants_credentials_is_not_the_apps_affair(engine: str) -> None:
    async with through(engine, "http") as way:
        way.proxy.status = 407
        response = await way.caller.request("GET", "/echo")
    assert (response.status, response.get("postern-error")) == (502, "connect")
    assert f"the HTTP proxy at {way.proxy.address} answered the request with status 407" in message(response)


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        (b"", "closed the connection without an answer to CONNECT"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection without an answer to CONNECT"),
        (b"SSH-2.0-x\r\n\r\n", "gave an answer to CONNECT that is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 40_000, "gave an answer to CONNECT that is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "sent something before the server was asked"),
    ],
)
async def test_tunnel_that_does_not_open_as_it_should_is_told(
    engine: str, opening: bytes, words: str
) -> None:
    async with through(engine, "https") as way:
        way.proxy.opening = opening
        response = await way.caller.request("GET", "/echo")
    assert message(response) == f"connect: the HTTP proxy at {way.proxy.address} {words}"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_proxy_that_is_down_is_told(engine: str, scheme: Scheme) -> None:
    async with through(engine, scheme) as way:
        address = f"127.0.0.1:{free_port()}"
        way.node.engine.set_cluster(replace(way.cluster, via=Via(address=address)))
        response = await way.caller.request("GET", "/echo")
    assert message(response) == f"connect: the HTTP proxy at {address}: Connection refused"


async def test_proxy_that_hangs_is_given_up(engine: str) -> None:
    async with through(engine, "https", connect_s=1.5) as way:
        way.proxy.is_silent = True
        response = await way.caller.request("GET", "/echo")
    through_it = f"through the HTTP proxy at {way.proxy.address}"
    assert message(response) == f"connect: no connection within 1.5 s {through_it}"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_attempts_are_made_again_through_the_proxy(engine: str, scheme: Scheme) -> None:
    policy = retry(3, Cause.STATUS, http_codes=frozenset({503}))
    async with through(engine, scheme, retries=(policy,)) as way:
        response = await way.caller.request("GET", f"/script?key={uuid.uuid4()}&codes=503,503,200")
    assert (response.status, response.body) == (200, b"attempt 3")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_bodies_stream_both_ways_through_the_proxy(engine: str, scheme: Scheme) -> None:
    async with through(engine, scheme) as way, asyncio.timeout(20.0):
        await way.caller.send_head("POST", "/duplex", [("Transfer-Encoding", "chunked")])
        await way.caller.send(b"5\r\nfirst\r\n")
        body = way.caller.body("POST", await way.caller.read_response_head(), [])
        assert await anext(body) == b"first"
        await way.caller.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert b"".join([part async for part in body]) == b"second"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_websocket_is_opened_in_a_tunnel(engine: str, scheme: Scheme) -> None:
    """Whether it is secure or not (RFC 6455 §4.1): a proxy that is asked for a whole URL drops Upgrade, as of one hop."""
    async with through(engine, scheme) as way, asyncio.timeout(20.0):
        for sent in (Frame(TEXT, b"hello"), Frame(BINARY, bytes(range(256)) * 400)):
            async with connect(way.port) as caller:
                head, key = await upgrade(caller, "/ws")
                assert (head.second, head.get("sec-websocket-accept")) == ("101", accept_key(key))
                await caller.send(format_frame(sent, is_client=True))
                assert (await read_frame(caller.reader)).payload == sent.payload
        assert (await way.caller.request("GET", "/echo")).status == 200
    authority = f"{HOST}:{PORTS[scheme]}"
    asked = [(head.first, head.second, head.get("proxy-authorization")) for head in way.proxy.asked]
    assert asked[:2] == [("CONNECT", authority, CREDENTIALS.decode())] * 2
    assert asked[2][0] == ("CONNECT" if scheme == "https" else "GET")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_websocket_that_a_proxy_refuses_is_told(engine: str, scheme: Scheme) -> None:
    async with through(engine, scheme) as way:
        way.proxy.status = 403
        head, _ = await upgrade(way.caller, "/ws")
        body = b"".join([part async for part in way.caller.body("GET", head, [])])
    assert (head.second, head.get("postern-error")) == ("502", "connect")
    assert f"answered CONNECT {HOST}:{PORTS[scheme]} with status 403" in body.decode()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_connection_through_one_proxy_is_not_used_for_another(engine: str, scheme: Scheme) -> None:
    async with through(engine, scheme) as way:
        assert (await way.caller.request("GET", "/echo")).status == 200
        elsewhere = Via(address=f"127.0.0.1:{free_port()}")
        way.node.engine.set_cluster(replace(way.cluster, via=elsewhere))
        assert (await way.caller.request("GET", "/echo")).get("postern-error") == "connect"
        way.node.engine.set_cluster(way.cluster)
        assert (await way.caller.request("GET", "/echo")).status == 200


def test_credentials_are_in_no_text() -> None:
    assert repr(Via(address="proxy.example:3128", authorization=CREDENTIALS)) == "Via(proxy.example:3128)"
