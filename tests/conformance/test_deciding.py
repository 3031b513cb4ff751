"""What deciders say is done: replies, holds, gates, limits, edits."""

import asyncio
import json
from base64 import b64decode, b64encode

import pytest
from msgspec.structs import replace

from proxy.contract.plan import Cause, Decision, Edit, Hold, Op, Route, Surface
from proxy.contract.recording import RecordingHead
from proxy.wire.status_details import error_status
from tests.conformance.accepting import Script
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import dial
from tests.conformance.harness import (
    EDITS,
    LABELS,
    LOCAL_REPLIES,
    TRACEPARENT,
    Node,
    always,
    leading,
    plan,
    reply,
    running,
)
from tests.support.error_details import error_info, request_id
from tests.support.http_client import connect, request
from tests.support.http_wire import format_head, read_head

GRPC = ((b"content-type", b"application/grpc+proto"), (b"te", b"trailers"))


# --- replies


async def test_reply_is_json_with_status_and_error_header_for_http(engine: str) -> None:
    async with running(engine) as node:
        port = await node.listen(always(reply(Cause.DENIED)))
        async with connect(port) as caller:
            response = await caller.request("POST", "/x", body=b"ignored")
            again = await caller.request("GET", "/y")
        outcome = await node.seen.outcome()
    assert (response.status, response.get("postern-error"), again.status) == (403, "denied", 403)
    trace = {
        "@type": "type.googleapis.com/google.rpc.RequestInfo",
        "requestId": TRACEPARENT[3:35].decode(),
    }
    told = {"errorCode": "ERR_DENIED", "message": "denied: /x", "details": [trace]}
    assert json.loads(response.body) == told
    assert response.get("traceparent") == TRACEPARENT.decode()
    assert (outcome.cause, outcome.status, outcome.attempts) == (Cause.DENIED, 403, [])


async def test_reply_is_trailers_only_with_code_and_message_for_grpc(engine: str) -> None:
    async with running(engine) as node:
        port = await node.listen(always(reply(Cause.DENIED, grpc_message="näh: 100%")))
        async with dial(port) as caller:
            message = await caller.whole(
                await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b"")
            )
        outcome = await node.seen.outcome()
    assert (message.status, message.ended, bytes(message.body)) == (200, True, b"")
    assert (message.get(b"grpc-status"), message.get(b"grpc-message")) == (b"7", b"n%C3%A4h: 100%25")
    assert message.get(b"traceparent") == TRACEPARENT
    details = b64decode((message.get(b"grpc-status-details-bin") or b"") + b"==")
    assert request_id(details) == (7, "näh: 100%", TRACEPARENT[3:35].decode())
    assert (outcome.grpc_code, outcome.cause) == (7, Cause.DENIED)


async def test_reply_keeps_its_own_details_beside_the_trace_for_grpc(engine: str) -> None:
    own = b64encode(error_status(7, "no", "ERR_X")).rstrip(b"=")
    told = replace(reply(Cause.DENIED, grpc_message="no"), headers=((b"grpc-status-details-bin", own),))
    async with running(engine) as node:
        port = await node.listen(always(told))
        async with dial(port) as caller:
            message = await caller.whole(
                await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b"")
            )
    details = b64decode((message.get(b"grpc-status-details-bin") or b"") + b"==")
    assert error_info(details) == (7, "no", {"reason": "ERR_X", "domain": "dapr.io"})
    assert request_id(details) == (7, "no", TRACEPARENT[3:35].decode())


async def test_reply_to_head_has_no_body(engine: str) -> None:
    async with running(engine) as node:
        port = await node.listen(always(reply(Cause.NO_APP)))
        async with connect(port) as caller:
            head = await caller.request("HEAD", "/")
            after = await caller.request("GET", "/")
    assert (head.status, head.body, after.status) == (404, b"", 404)
    assert int(head.get("content-length")) > 0


async def test_detail_in_a_reply_is_escaped(engine: str) -> None:
    async with running(engine) as node:
        port = await node.listen(always(reply(Cause.NO_APP)))
        async with connect(port) as caller:
            response = await caller.request("GET", '/a"b%22<x>')
    assert json.loads(response.body)["message"] == 'no-app: /a"b%22<x>'


async def test_decider_that_raises_fails_those_calls_alone(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(head: RecordingHead) -> Decision:
        if head.method() == "PUT":
            raise RuntimeError("a fault in a decider")
        return plan()

    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        port = await node.listen(decide)
        methods = ["PUT", "GET"] * 50
        answers = await asyncio.gather(*(request(port, method, "/echo") for method in methods))
        async with dial(port) as caller:
            failed, *others = [
                await caller.whole(await caller.request(b"/s/M", method=method, headers=headers, body=b""))
                for method, headers in ((b"PUT", GRPC), (b"PUT", ()), (b"GET", ()))
            ]
    assert [answer.status for answer in answers] == [500, 200] * 50
    assert "see its log" in json.loads(answers[0].body)["message"]
    assert (failed.get(b"grpc-status"), [other.status for other in others]) == (b"13", [500, 200])
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {
        "a fault in a decider"
    }


class Picky:
    """A path table that fails for some paths."""

    def classify(self, path: str) -> str:
        """See Table."""
        if path.startswith("/bad"):
            raise RuntimeError("a fault in a table")
        return "good"


async def test_path_that_can_not_be_classed_fails_its_calls_alone(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(head: RecordingHead) -> Decision:
        assert head.path_class(7) == "good"
        return plan()

    async with http_app() as app, running(engine) as node:
        node.engine.set_paths(7, Picky())
        node.cluster("app", app)
        port = await node.listen(decide)
        async with asyncio.timeout(30.0), connect(port) as caller:
            paths = ["/echo", "/bad", "/echo", "/bad", "/echo"]
            statuses = [(await caller.request("GET", path)).status for path in paths]
    assert statuses == [200, 500, 200, 500, 200]
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {"a fault in a table"}


# --- holds


async def test_hold_wakes_when_its_cluster_is_set(engine: str) -> None:
    async with http_app() as app, running(engine) as node:
        held = asyncio.Event()
        known = False

        def decide(head: RecordingHead) -> Decision:
            held.set()
            return plan() if known else Hold(key="app", for_s=30.0, then=reply(Cause.NO_APP))

        port = await node.listen(decide)
        async with connect(port) as caller:
            await caller.send_head("POST", "/echo", [("Content-Length", "5")])
            await caller.send(b"early")
            await held.wait()
            known = True
            node.cluster("app", app)
            response = await caller.read_response("POST")
    assert response.status == 200
    assert b'"body": "early"' in response.body


async def test_hold_wakes_by_name_without_a_new_cluster(engine: str) -> None:
    async with http_app() as app, running(engine) as node:
        held = asyncio.Event()
        allowed = False

        def decide(head: RecordingHead) -> Decision:
            held.set()
            return plan() if allowed else Hold(key="app", for_s=30.0, then=reply(Cause.NO_APP))

        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            await caller.send_head("GET", "/echo")
            await held.wait()
            allowed = True
            node.engine.wake("app")
            response = await caller.read_response("GET")
    assert response.status == 200


async def test_hold_expires_with_its_answer_and_what_was_tried(engine: str) -> None:
    async with running(engine) as node:
        port = await node.listen(lambda _: Hold(key="cart", for_s=0.05, then=reply(Cause.NO_APP)))
        async with connect(port) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (404, "no-app")
    assert b"looked for cart" in response.body


@pytest.mark.parametrize(("surface", "status"), [("own", 504), ("dapr", 500)])
async def test_deadline_that_passes_before_a_decision_is_told_as_after_it(
    engine: str, surface: Surface, status: int
) -> None:
    labels = replace(LABELS, surface=surface, dst="cart")
    hold = Hold(key="cart", for_s=60.0, then=replace(reply(Cause.NO_APP), labels=labels))
    async with running(engine) as node:
        port = await node.listen(always(hold))
        async with connect(port) as caller, dial(port) as grpc:
            for given in ("0", "50"):
                answer = await caller.request("GET", "/", headers=[("postern-timeout", given)])
                assert (answer.status, answer.get("postern-error")) == (status, "timeout")
                said = json.loads(answer.body)
                is_daprs = said["message"].startswith("failed to invoke, id: cart, err: the call's deadline")
                assert (said["errorCode"] == "ERR_DIRECT_INVOKE", is_daprs) == (surface == "dapr",) * 2
                outcome = await node.seen.outcome()
                assert (outcome.cause, outcome.labels) == (Cause.TIMEOUT, labels)
            stream = await grpc.request(b"/s/M", method=b"POST", headers=(*GRPC, (b"grpc-timeout", b"50m")))
            assert (await grpc.whole(stream)).get(b"grpc-status") == b"4"


async def test_deadline_that_passed_has_the_answer_of_the_plan_kept_or_not(engine: str) -> None:
    replies = {**LOCAL_REPLIES, Cause.TIMEOUT: reply(Cause.TIMEOUT, status=500)}
    async with running(engine) as node:
        port = await node.listen(always(plan(local_replies=replies)))
        async with connect(port) as caller:
            for _ in range(3):
                answer = await caller.request("GET", "/", headers=[("postern-timeout", "0")])
                assert (answer.status, answer.get("postern-error")) == (500, "timeout")


async def test_hold_that_expires_asks_once_more(engine: str) -> None:
    """Nothing woke it: the news came while its push was on the way."""
    times = 0

    def decide(head: RecordingHead) -> Decision:
        nonlocal times
        times += 1
        return plan() if times > 1 else Hold(key="cart", for_s=0.05, then=reply(Cause.NO_APP))

    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            response = await caller.request("GET", "/")
    assert (response.status, times) == (200, 2)


async def test_hold_is_one_wait_however_often_it_is_woken(engine: str) -> None:
    asked = asyncio.Semaphore(0)
    times = 0

    def decide(head: RecordingHead) -> Decision:
        asked.release()
        return Hold(key="cart", for_s=0.5, then=reply(Cause.NO_APP))

    async def wake_whenever_it_waits(node: Node) -> None:
        nonlocal times
        while await asked.acquire():
            times += 1
            node.engine.wake("cart")

    async with running(engine) as node:
        port = await node.listen(decide)
        async with connect(port) as caller, asyncio.TaskGroup() as group, asyncio.timeout(10.0):
            waking = group.create_task(wake_whenever_it_waits(node))
            response = await caller.request("GET", "/")
            waking.cancel()
    assert response.status == 404
    assert times > 1


# --- limits of a Plan


async def test_body_over_the_limit_by_its_length_is_413_before_the_app_is_asked(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, body_bytes=10) as way,
        connect(way.port) as caller,
    ):
        fits = await caller.request("POST", "/echo", body=b"0123456789")
        over = await caller.request("POST", "/echo", body=b"0123456789!")
        outcome = await way.front.seen.outcome(1)
    assert (fits.status, over.status, over.get("postern-error")) == (200, 413, "too-large")
    assert outcome.attempts == []


async def test_chunked_body_over_the_limit_is_413_and_cancels_the_app(engine: str) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_head(reader)
            begun.set()
            await reader.read()
        finally:
            left.set()

    async with (
        raw_app(app) as port,
        leading(engine, "one", port, body_bytes=10) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("POST", "/", [("Transfer-Encoding", "chunked")])
        await caller.send(b"a\r\n0123456789\r\n")
        await begun.wait()
        await caller.send(b"1\r\n!\r\n")
        response = await caller.read_response("POST")
        async with asyncio.timeout(30.0):
            await left.wait()
    assert (response.status, response.get("postern-error")) == (413, "too-large")


# --- edits and routes


async def test_edits_of_a_route_are_applied(engine: str) -> None:
    edits = (
        *EDITS,
        Edit(op=Op.AUTHORITY, data=b"the-app:80"),
        Edit(op=Op.SET, name=b"x-set", data=b"new"),
        Edit(op=Op.ADD, name=b"x-add", data=b"more"),
        Edit(op=Op.REMOVE, name=b"x-gone"),
        Edit(op=Op.REMOVE_PREFIX, name=b"dapr-"),
    )
    sent = [("X-Set", "old"), ("X-Add", "one"), ("X-Gone", "1"), ("Dapr-App-Id", "x"), ("X-Kept", "1")]
    routes = (Route(cluster="app", edits=edits),)
    async with (
        http_app() as app,
        leading(engine, "one", app, routes=routes) as way,
        connect(way.port) as caller,
    ):
        body = (await caller.request("GET", "/echo", headers=sent)).body.lower()
    assert b'["host", "the-app:80"]' in body
    assert b'["x-set", "new"]' in body
    assert b'["x-add", "one"], ["x-kept", "1"]' in body
    assert b'["x-add", "more"]' in body
    for gone in (b"x-gone", b"dapr-app-id", b'"old"'):
        assert gone not in body


@pytest.mark.parametrize("form", ["whole", "method"])
@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("//a/./x/../b%20c/?q=%zz", "/a/b%20c/?q=%zz"),
        ("/../../a%2Fb%5c%23%3F%252F%FF", "/a%2Fb%5c%23%3F%252F%FF"),
        ("/a/%2e%2e/b;c/..;/d?", "/a/%2e%2e/b;c/..;/d"),
        ("/a\\b|c", "/a%5Cb%7Cc"),
    ],
)
async def test_dapr_path_is_clean_and_keeps_escapes_query_and_trailing_slash(
    engine: str, form: str, sent: str, found: str
) -> None:
    edits = (*EDITS, Edit(op=Op.DAPR_PATH, data=form.encode()))
    routes = (Route(cluster="app", edits=edits),)
    target = f"/v1.0/invoke/cart/method{sent}" if form == "method" else sent
    async with (
        http_app() as app,
        leading(engine, "one", app, routes=routes) as way,
        connect(way.port) as caller,
    ):
        body = (await caller.request("GET", target)).body
    assert json.loads(body)["target"] == found


@pytest.mark.parametrize(
    ("path", "sent", "found"),
    [
        (b"/b/c", "/a", "/b/c"),
        (b"/b/c", "/a?q=%zz", "/b/c?q=%zz"),
        (b"/b?x=1", "/a", "/b?x=1"),
        (b"/b?x=1", "/a?y=2", "/b?x=1&y=2"),
    ],
)
async def test_path_is_replaced_and_the_query_kept(engine: str, path: bytes, sent: str, found: str) -> None:
    routes = (Route(cluster="app", edits=(*EDITS, Edit(op=Op.PATH, data=path))),)
    async with (
        http_app() as app,
        leading(engine, "one", app, routes=routes) as way,
        connect(way.port) as caller,
    ):
        body = (await caller.request("GET", sent)).body
    assert json.loads(body)["target"] == found


@pytest.mark.parametrize(
    ("told", "vary"),
    [
        ((), ["Origin, Y"]),
        ((("Vary", "x, ORIGIN"),), ["x, ORIGIN", "Y"]),
        ((("Vary", "*"),), ["*"]),
    ],
)
async def test_edits_of_an_answer_are_applied(
    engine: str, told: tuple[tuple[str, str], ...], vary: list[str]
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader) is not None:
            fields = [("content-length", "0"), ("x-old", "app"), *told]
            writer.write(format_head("HTTP/1.1 200 OK", fields))

    edits = (
        Edit(op=Op.SET, name=b"x-old", data=b"new"),
        Edit(op=Op.LIST, name=b"vary", data=b"Origin, Y"),
        Edit(op=Op.TELL_TRACE),
        Edit(op=Op.ECHO, name=b"baggage"),
    )
    sent = [("Baggage", "a=1"), ("Baggage", "b=2")]
    async with (
        raw_app(script) as app,
        leading(engine, "one", app, reply_edits=edits) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/", headers=sent)
    found = [(name.lower(), value) for name, value in answer.headers]
    assert [value for name, value in found if name == "vary"] == vary
    assert [value for name, value in found if name == "baggage"] == ["a=1", "b=2"]
    assert [value for name, value in found if name == "x-old"] == ["new"]
    assert [value for name, value in found if name == "traceparent"] == [TRACEPARENT.decode()]


async def test_answer_that_has_a_field_is_not_given_another(engine: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader) is not None:
            own = [("content-length", "0"), ("traceparent", "app"), ("baggage", "app")]
            writer.write(format_head("HTTP/1.1 200 OK", own))

    edits = (Edit(op=Op.TELL_TRACE), Edit(op=Op.ECHO, name=b"baggage"))
    async with (
        raw_app(script) as app,
        leading(engine, "one", app, reply_edits=edits) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/", headers=[("Baggage", "a=1")])
    found = [(name.lower(), value) for name, value in answer.headers]
    assert [field for field in found if field[1] in ("app", "a=1")] == [
        ("traceparent", "app"),
        ("baggage", "app"),
    ]


async def test_baggage_is_passed_on_as_far_as_it_is_sound(engine: str) -> None:
    route = Route(cluster="app", edits=(*EDITS, Edit(op=Op.BAGGAGE)))
    async with (
        http_app() as app,
        leading(engine, "one", app, routes=(route,)) as way,
        connect(way.port) as caller,
    ):
        for sent, arrives in (("a=1,broken,b=2;p", ["a=1,b=2;p"]), ("broken", [])):
            answer = await caller.request("GET", "/echo", headers=[("Baggage", sent)])
            fields = json.loads(answer.body)["headers"]
            assert [value for name, value in fields if name.lower() == "baggage"] == arrives


async def test_baggage_of_allowed_keys_alone_is_passed_on_where_the_edit_names_them(engine: str) -> None:
    edit = Edit(op=Op.BAGGAGE, name=b"only", data=b"b,c")
    async with (
        http_app() as app,
        leading(engine, "one", app, routes=(Route(cluster="app", edits=(*EDITS, edit)),)) as way,
        connect(way.port) as caller,
    ):
        for sent, arrives in (("a=1,b = 2;p,B=3,c=4", ["b = 2;p,c=4"]), ("a=1", []), ("b,c=1", ["c=1"])):
            answer = await caller.request("GET", "/echo", headers=[("Baggage", sent)])
            fields = json.loads(answer.body)["headers"]
            assert [value for name, value in fields if name.lower() == "baggage"] == arrives


async def test_weights_split_calls_between_routes(engine: str) -> None:
    hits = {"a": 0, "b": 0}

    def app(name: str) -> Script:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await read_head(reader):
                hits[name] += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return serve

    routes = (Route(cluster="a", weight=3, edits=EDITS), Route(cluster="b", weight=1, edits=EDITS))
    async with raw_app(app("a")) as a, raw_app(app("b")) as b, running(engine) as node:
        node.cluster("a", a)
        node.cluster("b", b)
        port = await node.listen(always(plan(routes=routes)))
        async with connect(port) as caller:
            for _ in range(200):
                await caller.request("GET", "/")
    assert 120 <= hits["a"] <= 180
    assert hits["a"] + hits["b"] == 200
