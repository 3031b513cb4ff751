"""Mutual TLS between engines: who is let in, who is believed, and how certificates change under running calls."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from msgspec.structs import replace

from proxy.contract.engine import Limits, PeerLeaf, PeerRefusal, RefusedLeafError
from proxy.contract.plan import Cause, Decision, Edit, Op, Route
from proxy.contract.recording import RecordingHead
from proxy.engine.portable.refusal import REFUSED_CERTIFICATE
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import PREFACE, FramePeer, Kind, dial, frame, serving
from tests.conformance.harness import Node, always, leading, plan, reply, retry, running
from tests.conformance.hellos import TLS_1_3, X25519MLKEM768, tap
from tests.conformance.identities import Mint, spiffe
from tests.support.http_client import connect
from tests.support.http_wire import read_head

EXPECT = frozenset({spiffe("callee")})


@asynccontextmanager
async def peer_port(
    engine: str, mint: Mint, *, limits: Limits | None = None
) -> AsyncIterator[tuple[Node, int]]:
    """A callee's engine with its peer port, in front of an HTTP app."""
    async with http_app() as app, running(engine, limits=limits) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        yield node, await node.listen(always(plan()), name="peer", tls="mesh")


async def refuses(port: int, context: ssl.SSLContext) -> None:
    """No answer comes on such a connection."""
    try:
        async with dial(port, tls=context) as caller:
            message = await caller.whole(await caller.request(b"/echo"))
    except OSError:
        return
    assert message.lost
    assert not message.headers


async def refusal(node: Node) -> PeerRefusal:
    """Why the one peer was not let in."""
    await node.seen.until(lambda: bool(node.seen.refused_peers))
    [(reason, detail, address)] = node.seen.refused_peers
    assert detail
    assert address == "127.0.0.1"
    return reason


async def test_peer_with_a_certificate_of_the_mesh_is_let_in_by_its_id(engine: str, mint: Mint) -> None:
    seen: list[str | None] = []

    def decide(head: RecordingHead) -> Decision:
        seen.append(head.peer())
        return plan()

    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(decide, name="peer", tls="mesh")
        async with dial(port, tls=mint.client_context("caller")) as caller:
            message = await caller.whole(await caller.request(b"/echo"))
        outcome = await node.seen.outcome()
    assert message.status == 200
    assert (seen, outcome.head.peer) == ([spiffe("caller")], spiffe("caller"))


async def test_peers_are_told_apart_in_kept_plans(engine: str, mint: Mint) -> None:
    def decide(head: RecordingHead) -> Decision:
        return plan() if head.peer() == spiffe("friend") else reply(Cause.DENIED)

    statuses = []
    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(decide, name="peer", tls="mesh")
        for name in ("friend", "foe", "friend", "foe"):
            async with dial(port, tls=mint.client_context(name)) as caller:
                statuses.append((await caller.whole(await caller.request(b"/echo"))).status)
    assert statuses == [200, 403, 200, 403]


async def test_peer_without_a_certificate_is_refused(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (node, port):
        await refuses(port, mint.client_context(None))
        assert await refusal(node) == "no-certificate"
        await node.seen.until(lambda: node.seen.open == 0)
    assert node.seen.outcomes == []


async def test_peer_of_a_foreign_mesh_is_refused(engine: str, mint: Mint) -> None:
    foreign = Mint().client_context("caller")
    foreign.load_verify_locations(cadata=mint.roots_pem.decode())
    async with peer_port(engine, mint) as (node, port):
        await refuses(port, foreign)
        assert await refusal(node) == "unknown-ca"
    assert node.seen.outcomes == []


async def test_peer_whose_certificate_has_ended_is_refused(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (node, port):
        await refuses(port, mint.client_context("caller", life=timedelta(minutes=-1)))
        assert await refusal(node) == "expired"
    assert node.seen.outcomes == []


async def test_tls_1_2_is_refused(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (node, port):
        await refuses(port, mint.client_context("caller", newest=ssl.TLSVersion.TLSv1_2))
        assert await refusal(node) == "protocol"


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)], ids=["none", "http1"])
async def test_peer_that_offers_no_protocol_of_ours_is_refused(
    engine: str, mint: Mint, alpn: tuple[str, ...]
) -> None:
    async with peer_port(engine, mint) as (node, port):
        await refuses(port, mint.client_context("caller", alpn=alpn))
        assert await refusal(node) == "protocol"
        await node.seen.until(lambda: node.seen.open == 0)
    assert node.seen.outcomes == []


def tls_end(port: int, context: ssl.SSLContext, data: bytes) -> str:
    """How TLS ends for a client that sends `data`: closed, cut (without an alert), or the alert that came. Blocks."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(data)
            while tls.recv(65_536):
                pass
    except ssl.SSLEOFError:
        return "cut"
    except ssl.SSLError as error:
        return str(error)
    return "closed"


@pytest.mark.parametrize(
    ("alpn", "data"),
    [
        ((), b""),
        (("http/1.1",), b""),
        (("h2",), b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"),
        (("h2",), PREFACE + frame(Kind.SETTINGS) + frame(Kind.DATA, 0, 0, b"x")),
    ],
    ids=["no protocol", "another protocol", "no HTTP/2", "broken HTTP/2"],
)
async def test_peer_that_is_sent_away_hears_it_in_tls(
    engine: str, mint: Mint, alpn: tuple[str, ...], data: bytes
) -> None:
    """RFC 8446 §6.1, RFC 7301 §3.2. Python's `ssl` has no way to refuse a protocol: the portable engine closes."""
    async with peer_port(engine, mint) as (_, port):
        end = await asyncio.to_thread(tls_end, port, mint.client_context("caller", alpn=alpn), data)
    if engine == "portable" or alpn != ("http/1.1",):
        assert end == "closed"
    else:
        assert "no application protocol" in end


async def test_own_protocol_is_preferred_and_h2_accepted(engine: str, mint: Mint) -> None:
    chosen = []
    async with peer_port(engine, mint) as (_, port):
        for alpn in (("h2", "postern/1"), ("h2",)):
            context = mint.client_context("caller", alpn=alpn)
            async with dial(port, tls=context) as caller:
                tls = caller.writer.get_extra_info("ssl_object")
                chosen.append((tls.selected_alpn_protocol(), tls.version()))
                assert (await caller.whole(await caller.request(b"/echo"))).status == 200
    assert chosen == [("postern/1", "TLSv1.3"), ("h2", "TLSv1.3")]


async def test_http1_within_mutual_tls_is_refused(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (node, port):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=mint.client_context("caller"), server_hostname=""
        )
        writer.write(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(5.0):
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
        writer.close()
    assert b"200" not in answer
    assert node.seen.outcomes == []


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 64]
)
async def test_plaintext_on_the_peer_port_is_refused(engine: str, mint: Mint, data: bytes) -> None:
    async with peer_port(engine, mint) as (node, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        async with asyncio.timeout(5.0):
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
        writer.close()
        await node.seen.until(lambda: node.seen.open == 0)
        assert await refusal(node) == "protocol"
    assert b"HTTP" not in answer


async def test_silent_handshake_is_cut_off_in_time(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint, limits=Limits(handshake_s=0.2, head_s=0.2)) as (node, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30.0):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        await node.seen.until(lambda: node.seen.open == 0)
        assert await refusal(node) == "timeout"


async def test_peer_that_hangs_up_in_the_handshake_is_counted_so(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (node, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        assert await refusal(node) == "closed"


async def test_peer_that_does_not_take_our_certificate_is_counted_so(engine: str, mint: Mint) -> None:
    context = Mint().client_context("caller")

    def knock() -> None:  # blocking: only so `ssl` sends the alert
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(connection)

    async with peer_port(engine, mint) as (node, port):
        await asyncio.to_thread(knock)
        assert await refusal(node) == "rejected-by-peer"


async def test_peer_that_the_control_plane_does_not_let_in_is_refused(engine: str, mint: Mint) -> None:
    def verify(der: bytes, as_server: bool) -> PeerLeaf:
        if is_open:
            return identity.verify(der, as_server)
        raise RefusedLeafError("trust-domain", "not one of ours")

    is_open, identity = False, mint.identity("callee")
    async with peer_port(engine, mint) as (node, port):
        node.engine.set_identity(replace(identity, verify=verify))
        await refuses(port, mint.client_context("caller"))
        assert await refusal(node) == "trust-domain"
        is_open = True  # from the next handshake on
        async with dial(port, tls=mint.client_context("caller")) as caller:
            assert (await caller.whole(await caller.request(b"/echo"))).status == 200


async def test_caller_that_is_not_let_in_is_told_where_the_reason_stands(engine: str, mint: Mint) -> None:
    def verify(der: bytes, as_server: bool) -> PeerLeaf:
        raise RefusedLeafError("trust-domain", "not one of ours")

    async with peer_port(engine, mint) as (node, port), running(engine) as front:
        node.engine.set_identity(replace(mint.identity("callee"), verify=verify))
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        entry = await front.listen(always(plan(expect=EXPECT)))
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (502, "connect")
    assert "it may have refused us: look for 'peer refused' in its log" in response.body.decode()


def refuse_one(server: socket.socket, context: ssl.SSLContext) -> None:
    """A blocking server: only so `ssl` sends the alert."""
    connection, _ = server.accept()
    connection.settimeout(5.0)
    with connection, suppress(ssl.SSLError, OSError):
        context.wrap_socket(connection, server_side=True)


async def test_callee_that_does_not_take_our_certificate_is_told_in_the_error(
    engine: str, mint: Mint
) -> None:
    context = mint.server_context("callee")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=Mint().roots_pem.decode())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5.0)
        async with asyncio.TaskGroup() as tasks, running(engine) as front:
            tasks.create_task(asyncio.to_thread(refuse_one, server, context))
            front.engine.set_identity(mint.identity("caller"))
            front.cluster("app", server.getsockname()[1], wire="postern", tls="mesh")
            entry = await front.listen(always(plan(expect=EXPECT)))
            async with connect(entry) as caller:
                response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (502, "tls-identity")
    assert (
        f"the app refused our certificate (tls: unknown certificate authority): {REFUSED_CERTIFICATE['UNKNOWN_CA']}"
        in response.body.decode()
    )


async def test_no_session_ticket_is_given(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (_, port), dial(port, tls=mint.client_context("caller")) as caller:
        assert (await caller.whole(await caller.request(b"/echo"))).status == 200
        tls: ssl.SSLObject = caller.writer.get_extra_info("ssl_object")
        session = tls.session
    assert session is None or not session.has_ticket


async def test_engine_without_an_identity_lets_nobody_in(engine: str, mint: Mint) -> None:
    async with running(engine) as node:
        port = await node.listen(always(reply(Cause.NO_APP)), name="peer", tls="mesh")
        await refuses(port, mint.client_context("caller"))
    assert await refusal(node) == "not-ready"


async def test_engine_without_an_identity_calls_nobody(engine: str) -> None:
    async with running(engine) as node:
        node.cluster("app", 1, wire="postern", tls="mesh")
        port = await node.listen(always(plan(expect=EXPECT)))
        async with connect(port) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (503, "not-ready")


async def test_callee_with_another_id_than_expected_is_refused(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (back, port), running(engine) as front:
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        entry = await front.listen(always(plan(expect=frozenset({spiffe("other")}))))
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
        outcome = await front.seen.outcome()
    assert (response.status, response.get("postern-error")) == (502, "tls-identity")
    assert outcome.cause is Cause.TLS_IDENTITY
    assert spiffe("other").encode() in response.body
    assert back.seen.outcomes == []


async def test_connection_made_for_one_id_never_serves_another(engine: str, mint: Mint) -> None:
    def decide(head: RecordingHead) -> Decision:
        wanted = "callee" if head.method() == "GET" else "other"
        return plan(expect=frozenset({spiffe(wanted)}))

    async with peer_port(engine, mint) as (_, port), running(engine) as front:
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        entry = await front.listen(decide)
        async with connect(entry) as caller:
            statuses = [
                (await caller.request(m, "/status", body=b"")).status for m in ("GET", "POST", "GET", "POST")
            ]
    assert statuses == [200, 502, 200, 502]


async def test_callee_of_a_foreign_mesh_is_refused(engine: str, mint: Mint) -> None:
    foreign = Mint()
    async with peer_port(engine, foreign) as (_, port), running(engine) as front:
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        entry = await front.listen(always(plan(expect=EXPECT)))
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (502, "tls-identity")


async def test_callee_that_chooses_no_protocol_is_refused(engine: str, mint: Mint) -> None:
    async def never(peer: FramePeer) -> None:
        await peer.to_the_end()

    context = mint.server_context("callee", alpn=())
    async with serving(never, tls=context) as port, running(engine) as front:
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        entry = await front.listen(always(plan(expect=EXPECT)))
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (502, "tls-identity")


async def test_only_tls_1_3_is_offered_and_a_hybrid_key_exchange_before_all_others(
    engine: str, mint: Mint
) -> None:
    """X25519MLKEM768, where both ends have it: the native engine, and `ssl` from OpenSSL 3.5 on."""
    async with (
        peer_port(engine, mint) as (_, port),
        tap(port) as (tapped, taken),
        running(engine) as front,
    ):
        front.cluster("app", tapped, wire="postern", tls="mesh")
        entry = await front.listen(always(plan(expect=EXPECT)))
        for _ in range(2):  # and so again under a renewed identity
            front.engine.set_identity(mint.identity("caller"))
            async with connect(entry) as caller:
                assert (await caller.request("GET", "/echo")).status == 200
    assert len(taken) == 2
    is_hybrid = engine != "portable" or ssl.OPENSSL_VERSION_INFO >= (3, 5)
    for hellos in taken:
        assert (hellos.offered_versions, hellos.chosen_version) == ([TLS_1_3], TLS_1_3)
        assert (hellos.offered_groups[0] == X25519MLKEM768) is is_hybrid
        assert (hellos.chosen_group == X25519MLKEM768) is is_hybrid


async def test_peer_that_speaks_plain_h2_gets_no_http_calls(engine: str, mint: Mint) -> None:
    async def never(peer: FramePeer) -> None:
        await peer.to_the_end()

    context = mint.server_context("callee", alpn=("h2",))
    async with serving(never, tls=context) as port, running(engine) as front:
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        entry = await front.listen(always(plan(expect=EXPECT)))
        async with connect(entry) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (501, "unsupported")


async def test_http_call_takes_its_other_route_where_the_peer_speaks_plain_h2(
    engine: str, mint: Mint
) -> None:
    async def never(peer: FramePeer) -> None:
        await peer.to_the_end()

    async def translator(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_head(reader)) is not None:
            assert await reader.readexactly(4) == b"body"
            told = request.get("x-route").encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))

    context = mint.server_context("callee", alpn=("h2",))
    other = Route(cluster="translator", weight=0, edits=(Edit(op=Op.SET, name=b"x-route", data=b"other"),))
    async with (
        serving(never, tls=context) as port,
        raw_app(translator) as second,
        running(engine) as front,
    ):
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        front.cluster("translator", second)
        first = plan(expect=EXPECT)
        entry = await front.listen(always(replace(first, routes=(*first.routes, other), by_daprd=1)))
        async with connect(entry) as caller:
            for _ in range(3):
                response = await caller.request("POST", "/", body=b"body")
                assert (response.status, response.body) == (200, b"other")
        outcome = await front.seen.outcome(2)
    assert [attempt.endpoint for attempt in outcome.attempts] == [f"127.0.0.1:{port}"]


async def test_denial_by_a_daprd_is_told_as_one_and_stays_a_failure(engine: str, mint: Mint) -> None:
    """Our translator has it of the daprd; as to Dapr, it is retried."""

    async def never(peer: FramePeer) -> None:
        await peer.to_the_end()

    async def translator(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            writer.write(b"HTTP/1.1 403 X\r\npostern-error: denied\r\nContent-Length: 0\r\n\r\n")

    other = Route(cluster="translator", weight=0)
    async with (
        serving(never, tls=mint.server_context("callee", alpn=("h2",))) as port,
        raw_app(translator) as second,
        running(engine) as front,
    ):
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", port, wire="postern", tls="mesh")
        front.cluster("translator", second)
        first = plan(expect=EXPECT, retries=(retry(2, http_codes=None),))
        entry = await front.listen(always(replace(first, routes=(*first.routes, other), by_daprd=1)))
        async with connect(entry) as caller:
            assert (await caller.request("GET", "/")).status == 403
        outcome = await front.seen.outcome()
    assert [attempt.said for attempt in outcome.attempts] == [Cause.DENIED] * 2


async def test_rotation_under_running_calls_drops_none(engine: str, mint: Mint) -> None:
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            begun.release()
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with raw_app(app) as port, leading(engine, "two", port, mint=mint) as way, dial(way.port) as caller:
        early = [await caller.request() for _ in range(5)]
        for _ in range(5):
            await begun.acquire()
        for _ in range(3):
            way.front.engine.set_identity(mint.identity("caller"))
            way.back.engine.set_identity(mint.identity("callee"))
        late = [await caller.request() for _ in range(5)]
        for _ in range(5):
            await begun.acquire()
        go.set()
        statuses = [(await caller.whole(stream)).status for stream in early + late]
        # the connections under the old identity go once their calls are over
        await way.back.seen.until(lambda: way.back.seen.open == 1)
        opened = way.back.seen.opened
    assert statuses == [200] * 10
    assert opened == 2


async def test_rotation_to_another_root_is_followed_by_new_connections(engine: str) -> None:
    old, new = Mint(), Mint()
    async with http_app() as app, leading(engine, "two", app, mint=old) as way, connect(way.port) as caller:
        statuses = [(await caller.request("GET", "/echo")).status]
        way.back.engine.set_identity(old.identity("callee", roots=new.roots_pem))
        way.front.engine.set_identity(new.identity("caller", roots=old.roots_pem))
        statuses.append((await caller.request("GET", "/echo")).status)
        way.back.engine.set_identity(new.identity("callee"))
        way.front.engine.set_identity(new.identity("caller"))
        statuses.append((await caller.request("GET", "/echo")).status)
    assert statuses == [200] * 3


async def test_unusable_identity_leaves_the_old_one_in_force(engine: str, mint: Mint) -> None:
    async with peer_port(engine, mint) as (node, port):
        bad = replace(mint.identity("callee"), key_pem=mint.identity("other").key_pem)
        with pytest.raises((ssl.SSLError, ValueError)):
            node.engine.set_identity(bad)
        async with dial(port, tls=mint.client_context("caller")) as caller:
            message = await caller.whole(await caller.request(b"/echo"))
    assert message.status == 200


def test_identity_never_shows_its_key(mint: Mint) -> None:
    identity = mint.identity("x")
    assert b"PRIVATE" in identity.key_pem
    assert "PRIVATE" not in repr(identity)
