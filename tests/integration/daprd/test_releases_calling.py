"""Daprds of several releases call apps behind our sidecars: HTTP and gRPC, streams, rules, failures."""

import asyncio
import json

import pytest

from proxy.wire.http2_client import Http2Client
from tests.integration.daprd.calling import EndedError, Invocation, proxied
from tests.integration.daprd.releases import RELEASES, V1_9, V1_15, V1_17, V1_18, Release
from tests.integration.daprd.skew import OURS, OURS_GRPC, Skew
from tests.integration.mesh.standing import eventually
from tests.support.http_client import request
from tests.support.proto.echo_pb2 import EchoReply, EchoRequest, ProbeReply, ProbeRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEADLINE_S = 45.0
INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, INTERNAL = 3, 7, 8, 13
STREAMING = [release for release in RELEASES if release.has_streams]
of_each = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.app_id)
of_each_that_streams = pytest.mark.parametrize("release", STREAMING, ids=lambda release: release.app_id)


def to_ours(
    client: Http2Client, release: Release, verb: str, target: str, *fields: tuple[str, str]
) -> Invocation:
    """A call of our app that speaks HTTP."""
    return Invocation(client, release, OURS, verb, target, *fields)


@of_each
async def test_request_and_answer_are_carried(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        hop = (("Connection", "X-Hop, keep-alive"), ("X-Hop", "1"), ("Upgrade", "h2c"), ("Te", "trailers"))
        sent = (("Content-Type", "text/x-note"), ("X-Twice", "a"), ("X-Twice", "b"), ("postern-peer", "x"))
        call = to_ours(client, release, "PUT", "/echo/a b?x=1&y=%20z;w", *sent, *hop)
        call.say(b"hello")
        call.finish()
        head = await call.head()
        told = json.loads(await call.body())
        assert (head.status.code, head.message.content_type) == (200, "application/json")
        assert head.headers["X-App"].values == ["ours"]
        assert (told["method"], told["target"], told["body"]) == ("PUT", "/echo/a%20b?x=1&y=%20z;w", "hello")
        headers = [(name.lower(), value) for name, value in told["headers"]]
        assert [value for name, value in headers if name == "x-twice"] in (["a", "b"], ["a, b"], ["a,b"])
        named = dict(headers)
        assert named["dapr-caller-app-id"] == release.app_id
        assert named["content-type"] == "text/x-note"
        assert not {"x-hop", "upgrade", "te", "postern-peer", "destination-app-id"} & set(named)


@of_each
async def test_statuses_and_large_bodies_are_carried(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        for code in (204, 302, 404, 503):
            call = to_ours(client, release, "GET", f"/status?code={code}&header=location:/x")
            call.finish()
            head = await call.head()
            assert (head.status.code, head.headers["Location"].values[0]) == (code, "/x")
            assert await call.body() == (b"" if code == 204 else f"status {code}".encode())
        body = bytes(range(256)) * (20_000 if release.has_streams else 4_000)  # beyond --max-body-size
        call = to_ours(client, release, "POST", "/sink", ("Content-Length", str(len(body))))
        call.say(body)
        call.finish()
        await call.head()
        assert json.loads(await call.body())["bytes"] == len(body)
        down = to_ours(client, release, "GET", "/bytes?n=1000000&chunk=10000")
        down.finish()
        await down.head()
        assert len(await down.body()) == 1_000_000


@of_each_that_streams
async def test_each_piece_arrives_before_the_next_is_sent(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        call = to_ours(client, release, "POST", "/duplex")
        call.say(b"first")
        await call.head()
        assert await call.piece() == b"first"
        for word in (b"second", b"third"):
            call.say(word)
            assert await call.piece() == word
        call.finish()
        assert await call.body() == b""


@of_each_that_streams
async def test_events_come_as_they_are_and_end_with_their_caller(
    among_releases: Skew, release: Release
) -> None:
    async def cut() -> int:
        return int(json.loads((await request(among_releases.http.http_port, "GET", stats)).body)["cut"])

    stats = f"/v1.0/invoke/{OURS}/method/stats"
    before = await cut()
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        call = to_ours(client, release, "GET", "/sse?n=100000&every_s=0.01", ("Accept", "text/event-stream"))
        call.finish()
        head = await call.head()
        assert (head.status.code, head.message.content_type) == (200, "text/event-stream")
        wanted = b"".join(b"id: %d\ndata: event %d\n\n" % (number, number) for number in range(3))
        found = b""
        while len(found) < len(wanted) and (piece := await call.piece()) is not None:  # some come at once
            found += piece
        assert found.startswith(wanted)
        call.call.cancel()

        async def is_cut() -> bool:
            return await cut() > before

        await eventually(is_cut)


@of_each
async def test_rules_name_the_caller_by_its_certificate(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        for target in ("/secret", "/secret/x", "//secret", "/x/../secret"):
            call = to_ours(client, release, "GET", target, ("dapr-caller-app-id", "admin"))
            call.finish()
            with pytest.raises(EndedError) as denied:
                await call.head()
            assert denied.value.code == PERMISSION_DENIED, target
        allowed = to_ours(client, release, "GET", "/secrets")
        allowed.finish()
        assert (await allowed.head()).status.code == 200


@pytest.mark.parametrize("release", [V1_9, V1_15, V1_17], ids=lambda release: release.app_id)
async def test_methods_that_older_releases_send_as_they_are_have_one_reading(
    among_releases: Skew, release: Release
) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        for method, code in (("x\x00/secret", INVALID_ARGUMENT), ("a#/../secret", INVALID_ARGUMENT)):
            call = to_ours(client, release, "GET", f"/{method}")
            call.finish()
            with pytest.raises(EndedError) as refused:
                await call.head()
            assert refused.value.code == code


@of_each
async def test_app_that_hangs_up_is_internal(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.http) as client:
        call = to_ours(client, release, "POST", "/die?when=head")
        call.say(b"x")
        call.finish()
        with pytest.raises(EndedError) as failed:
            await call.head()
        assert failed.value.code == INTERNAL
        call = to_ours(client, release, "GET", "/die?when=length")
        call.finish()
        with pytest.raises(EndedError):
            await call.whole()


@of_each
async def test_grpc_app_is_called_by_on_invoke(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.grpc) as client:
        call = Invocation(client, release, OURS_GRPC, "PUT", "/hello/x?y=1", ("Content-Type", "text/plain"))
        call.say(b"hi")
        call.finish()
        head = await call.head()
        told = json.loads(await call.body())
        assert (head.status.code, told["method"], told["verb"]) == (0, "hello/x", "PUT")
        assert (told["query"], told["body"], told["content_type"]) == ("y=1", "hi", "text/plain")
        call = Invocation(client, release, OURS_GRPC, "GET", "/fail")
        call.finish()
        head = await call.head()
        assert (head.status.code, head.status.message) == (9, "not ready: ümläut %")


@of_each
async def test_grpc_calls_stream_live_and_end_with_their_caller(
    among_releases: Skew, release: Release
) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.grpc) as client:
        call = proxied(client, release, OURS_GRPC, "Bidi", (b"x-a", b"1"), (b"x-b-bin", b"AAH/"))
        for word in ("one", "two"):
            call.send(EchoRequest(message=word).SerializeToString())
            reply = EchoReply.FromString(await call.message() or b"")
            assert (reply.message, reply.app) == (word, OURS_GRPC)
            named = {one.name: one.value for one in reply.metadata}
            assert (named["x-a"], named["x-b-bin"]) == (b"1", b"\x00\x01\xff")
            assert named["dapr-caller-app-id"] == release.app_id.encode()
            assert "dapr-app-id" not in named
        call.half_close()
        assert await call.message() is None
        unary = proxied(client, release, OURS_GRPC, "Unary")
        unary.send(EchoRequest(message="u").SerializeToString())
        unary.half_close()
        assert EchoReply.FromString(await unary.message() or b"").message == "u"
        assert await unary.message() is None
        assert dict(unary.trailers)[b"x-trailer"] == b"unary"
        before = sum((await probe(client, release)).cancelled.values())
        endless = proxied(client, release, OURS_GRPC, "ServerStream")
        endless.send(EchoRequest(message="m", count=100_000, delay_s=0.01).SerializeToString())
        endless.half_close()
        assert await endless.message() is not None
        endless.cancel()
        seen = await probe(client, release, cancellations=before + 1)
        assert sum(seen.cancelled.values()) == before + 1


async def probe(client: Http2Client, release: Release, cancellations: int = 0) -> ProbeReply:
    """What our app that speaks gRPC has seen; waits for so many cancellations."""
    call = proxied(client, release, OURS_GRPC, "Probe")
    call.send(ProbeRequest(cancellations=cancellations, wait_s=10.0).SerializeToString())
    call.half_close()
    return ProbeReply.FromString(await call.message() or b"")


@of_each
async def test_grpc_calls_are_judged_and_errors_are_the_apps(among_releases: Skew, release: Release) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.grpc) as client:
        call = proxied(client, release, OURS_GRPC, "Fail")
        call.send(EchoRequest(message="no", code=9).SerializeToString())
        call.half_close()
        with pytest.raises(EndedError) as denied:
            await call.message()
        assert denied.value.code == PERMISSION_DENIED
        call = proxied(client, release, OURS_GRPC, "Script")
        call.send(EchoRequest(message=f"{release.app_id}:9").SerializeToString())
        call.half_close()
        with pytest.raises(EndedError, match="attempt 1") as failed:
            await call.message()
        assert failed.value.code == 9


async def test_body_beyond_the_limit_of_one_message_is_too_large(among_releases: Skew) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(V1_9, among_releases.http) as client:
        call = to_ours(client, V1_9, "POST", "/sink")
        call.say(b"x" * 5_000_000)
        call.finish()
        with pytest.raises(EndedError) as refused:
            await call.head()
        assert refused.value.code == RESOURCE_EXHAUSTED


@of_each
async def test_trace_that_its_client_has_begun_goes_on_where_a_daprd_names_both_spans(
    among_releases: Skew, release: Release
) -> None:
    trace = "a1" * 16
    spans = [(b"traceparent", f"00-{trace}-{letter * 16}-01".encode()) for letter in "bc"]
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(release, among_releases.grpc) as client:
        call = proxied(client, release, OURS_GRPC, "Unary", *spans)
        call.send(EchoRequest(message="u").SerializeToString())
        call.half_close()
        reply = EchoReply.FromString(await call.message() or b"")
        (told,) = (one.value.decode() for one in reply.metadata if one.name == "traceparent")
        assert told[3:35] == trace


async def test_call_for_another_app_is_not_ours(among_releases: Skew) -> None:
    async with asyncio.timeout(DEADLINE_S), among_releases.calling(V1_18, among_releases.grpc) as client:
        call = proxied(client, V1_18, "other", "Unary")
        call.send(EchoRequest(message="u").SerializeToString())
        call.half_close()
        with pytest.raises(EndedError) as refused:
            await call.message()
        assert refused.value.code not in (None, 0)
