"""What is forwarded is what was judged: targets as their bytes, trailers as heads."""

import pytest

from proxy.contract.plan import Edit, Op, Plan, Route
from proxy.contract.recording import RecordingHead
from proxy.deciding.callee import SERVICES, Services
from tests.conformance.frames import END_HEADERS, END_STREAM, FramePeer, Kind, dial, frame, serving
from tests.conformance.harness import EDITS, leading, plan

GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
STRIPPING = (*EDITS, Edit(op=Op.REMOVE_PREFIX, name=b"dapr-caller-"), Edit(op=Op.REMOVE, name=b"x-gone"))


async def answer(peer: FramePeer) -> None:
    """200 with the target that arrived."""
    while True:
        stream = await peer.next_request()
        message = await peer.whole(stream)
        await peer.respond(stream, headers=((b"x-path", message.get(b":path")),), body=b"x")


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"/a%2Fb",
            b"/my%23t",
            b"/x%3Fy",
            b"/a%252Fb",
            b"/a%5Cb",
            b"/f/https%3A%2F%2Fshop.example%2Fx",
            b"/%FF",
        ),
        *(
            b"/100%25ab",
            b"//a//b/",
            b"/./a/../b",
            b"/a/%2e%2e/b",
            b"/a;b=1/..;/c",
            b"/a\\b",
            b"/%e4%BD%a0?%zz=//..",
        ),
    ],
)
async def test_target_that_rfc_3986_allows_is_forwarded_byte_for_byte(engine: str, path: bytes) -> None:
    async with (
        serving(answer) as app,
        leading(engine, "two", app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request(path))
    assert (message.status, message.get(b"x-path")) == (200, path)


@pytest.mark.parametrize(
    ("path", "service"),
    [
        *((b"/a.B/C", "a.B"), (b"/a.B/C/", ""), (b"/a.B//C", ""), (b"/a.B/%43", ""), (b"/a.B/C?d", "")),
        *((b"/a.B/../C", ""), (b"/a.B/..", ""), (b"/./C", ""), (b"//a.B/C", "")),
    ],
)
async def test_grpc_target_names_a_service_only_where_it_is_exactly_service_and_method(
    engine: str, path: bytes, service: str
) -> None:
    seen: list[object] = []

    def rule(head: RecordingHead) -> Plan:
        seen.append(head.path_class(SERVICES))
        return plan()

    async with (
        serving(answer) as app,
        leading(engine, "one", app, wire="h2c", decide=rule) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_paths(SERVICES, Services())
        await caller.whole(await caller.request(path, method=b"POST", headers=GRPC))
    assert seen == [service]


async def test_star_is_a_target_of_options_alone(engine: str) -> None:
    async with (
        serving(answer) as app,
        leading(engine, "one", app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        refused = await caller.whole(await caller.request(b"*"))
        message = await caller.whole(await caller.request(b"*", method=b"OPTIONS"))
    assert refused.status == 400
    assert (message.status, message.get(b"x-path")) == (200, b"*")


@pytest.mark.parametrize("path", [b"/\xc3\xa4", b"/a b", b"/\x7f"])
async def test_target_with_bytes_that_must_be_escaped_is_a_400(engine: str, path: bytes) -> None:
    async with (
        serving(answer) as app,
        leading(engine, "one", app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request(path))
    assert message.status in (400, 0)  # an engine may also end the connection that they came on


async def test_trailers_lose_what_goes_from_heads_in_either_spelling(engine: str) -> None:
    sent = ((b"x-kept", b"1"), (b"x-gone", b"1"), (b"dapr_caller_app_id", b"me"), (b"traceparent", b"00-1"))
    got: list[list[tuple[bytes, bytes]]] = []

    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        got.append((await peer.whole(stream)).trailers)
        await peer.respond(stream, body=b"x", trailers=sent)

    routes = (Route(cluster="app", edits=STRIPPING),)
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", routes=routes, reply_edits=STRIPPING[-2:]) as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(method=b"POST", end=False)
        await caller.send_body(stream, b"x")
        await caller.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, caller.block(sent)))
        message = await caller.whole(stream)
    assert got == [[(b"x-kept", b"1")]]
    assert message.trailers == [(b"x-kept", b"1"), (b"traceparent", b"00-1")]
