"""A renewed identity reaches who is connected already: nobody stays in for ever on a certificate shown once."""

from proxy.contract.engine import Limits
from tests.conformance.apps import http_app
from tests.conformance.frames import Code, Kind, dial
from tests.conformance.harness import always, plan, running
from tests.conformance.identities import Mint


async def test_peers_let_in_under_the_old_identity_are_asked_to_come_again(engine: str, mint: Mint) -> None:
    async with http_app() as app, running(engine, limits=Limits(head_s=2.0)) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(always(plan()), name="peer", tls="mesh")
        plain = await node.listen(always(plan()))
        async with dial(port, tls=mint.client_context("caller")) as peer, dial(plain) as local:
            assert (await peer.whole(await peer.request(b"/echo"))).status == 200
            assert (await local.whole(await local.request(b"/echo"))).status == 200
            node.engine.set_identity(mint.identity("callee"))
            goaway = await peer.until(lambda f: f.kind == Kind.GOAWAY)
            late = await peer.whole(await peer.request(b"/echo"))
            await peer.to_the_end()
            await local.settled()
            assert local.goaway is None
        async with dial(port, tls=mint.client_context("caller")) as again:
            assert (await again.whole(await again.request(b"/echo"))).status == 200
    assert (goaway.code, goaway.last_stream) == (Code.NO_ERROR, 0x7FFFFFFF)
    assert late.status in (200, 0)  # sent after the GOAWAY: answered, or refused for another connection


async def test_call_under_way_outlives_a_renewed_identity(engine: str, mint: Mint) -> None:
    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(always(plan()), name="peer", tls="mesh")
        async with dial(port, tls=mint.client_context("caller")) as peer:
            stream = await peer.request(b"/echo", method=b"POST", body=b"first ", end=False)
            await peer.settled()
            node.engine.set_identity(mint.identity("callee"))
            await peer.until(lambda f: f.kind == Kind.GOAWAY)
            await peer.settled()
            await peer.send_body(stream, b"second", end=True)
            message = await peer.whole(stream)
            await peer.to_the_end()
    assert message.status == 200
    assert b"first second" in bytes(message.body)
