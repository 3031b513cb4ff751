"""External authorizers between real proxies, on both engines: asked by gRPC in Envoy's own messages, and over HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke, until_logged
from tests.integration.mesh.test_access_policies import SERVICE, policy, rule
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.ext_authz import ExtAuthz, allowed, denied, ext_authz, option
from tests.support.http_client import connect, request
from tests.support.http_wire import Head, Response, read_head
from tests.support.mesh import Mesh, SharedSentry, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.websocket import new_key

pytestmark = pytest.mark.asyncio(loop_scope="module")  # that of the authorizer, which runs here
RULES = (
    rule("open", "allow", "*", to={"paths": ["/open/{**}", "/asked/{**}"]}),
    rule("asked", "authorize", "web", "shop", authorizer="judge", to={"paths": ["/asked/{**}"]}),
    rule("closed", "deny", "*", to={"paths": ["/asked/never/{**}"]}),
    rule("echo", "authorize", "web", authorizer="judge", to={"grpc": {"services": ["testing.*"]}}),
)


def asking(entry: dict[str, Any], *rules: dict[str, object], **spec: Any) -> str:
    """A policy with one authorizer, `judge`."""
    return policy(*(rules or RULES), authorizers=[{"name": "judge", "timeout": "5s", **entry}], **spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`web` calls `shop` (HTTP) and `echo` (gRPC), whose policy has `judge` asked."""

    web: Sidecar
    shop: Sidecar
    judge: ExtAuthz
    file: Path

    async def call(self, path: str, *headers: tuple[str, str], caller: Sidecar | None = None) -> Response:
        """The answer to a call to shop."""
        return await request((caller or self.web).http_port, "GET", invoke("shop", path), headers=headers)

    async def echo(self) -> grpc.aio.AioRpcError | str:
        """What comes of a gRPC call to echo."""
        async with grpc.aio.insecure_channel(f"localhost:{self.web.grpc_port}") as channel:
            client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),), service=SERVICE)
            try:
                reply = await client.unary(EchoRequest(message="hi"))
            except grpc.aio.AioRpcError as error:
                return error
            return str(reply.message)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """One for the module on each engine."""
    engine = ("--engine", str(request.param))
    async with ext_authz() as judge, Mesh(tmp_path_factory.mktemp("authorizers")) as mesh:
        file = mesh.write("resources/policy.yaml", asking({"grpc": judge.address}))
        flags = (*engine, "--profile", "production", "--resources-path", str(file.parent))
        shop = await mesh.sidecar("shop", app=await mesh.http_app(), flags=flags)
        await mesh.sidecar("echo", app=await mesh.grpc_app(), flags=flags)
        yield Place(web=await mesh.sidecar("web", flags=engine), shop=shop, judge=judge, file=file)


@pytest.fixture
def place(standing: Place) -> Place:
    """The same with an authorizer that lets all pass, and was asked nothing."""
    standing.judge.judge = lambda _: allowed()
    standing.judge.asked.clear()
    standing.judge.go.set()
    return standing


def headers_of(answer: Response) -> dict[str, str]:
    """What the app was sent, which it answers with."""
    return {name.lower(): value for name, value in json.loads(answer.body)["headers"]}


async def test_a_call_is_asked_about_with_who_calls_and_what(place: Place) -> None:
    answer = await place.call("/asked/1?x=2", ("x-token", "t"), ("dapr-caller-app-id", "admin"))
    assert (answer.status, len(place.judge.asked)) == (200, 1)
    (asked,) = place.judge.asked
    attributes, http = asked.attributes, asked.attributes.request.http
    assert attributes.source.principal == "spiffe://public/ns/default/web"
    assert attributes.destination.principal == "spiffe://public/ns/default/shop"
    assert (attributes.source.service, attributes.destination.service) == ("web.default", "shop.default")
    assert (http.method, http.path, http.headers["x-token"]) == ("GET", "/asked/1?x=2", "t")
    assert dict(attributes.context_extensions) == {"authorizer": "judge"}
    assert not [name for name in http.headers if name.startswith(("dapr-caller", "postern-"))]


async def test_what_no_rule_has_asked_is_not_asked_about(place: Place) -> None:
    assert (await place.call("/open/1")).status == 200
    assert (await place.call("/else")).status == 403
    assert (await place.call("/asked/never/1")).status == 403
    assert place.judge.asked == []


@pytest.mark.parametrize(
    "path",
    ["/ASKED/1", "/%61sked/1", "//asked/1", "/open/../asked/1", "/asked;v=1/1", "/open/..%2fasked/1"],
)
async def test_no_spelling_gets_round_being_asked_about(place: Place, path: str) -> None:
    place.judge.judge = lambda _: denied(403, "no")
    assert (await place.call("/open/1")).status == 200
    assert (await place.call(path)).status == 403


async def test_new_rules_leave_questions_under_way_alone(place: Place) -> None:
    place.judge.go.clear()
    before = place.file.read_text()
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(place.call("/asked/1")) for _ in range(3)]

        async def asked() -> bool:
            return len(place.judge.asked) == len(calls)

        await eventually(asked)
        for spec in (asking({"grpc": place.judge.address, "timeout": "6s"}), before):
            status: Any = await place.shop.status()
            generation = status["policy"]["generation"]
            place.file.write_text(spec)

            async def changed(generation: int = generation) -> bool:
                status: Any = await place.shop.status()
                return int(status["policy"]["generation"]) > generation

            await eventually(changed)
        place.judge.go.set()
    assert [call.result().status for call in calls] == [200] * len(calls)


async def test_an_answer_gives_the_app_fields_that_a_caller_can_not(place: Place) -> None:
    place.judge.judge = lambda _: allowed(
        option("x-user", "ann"),
        option("x-group", "ops", append=True),
        *(
            option(name, "evil")
            for name in ("dapr-caller-app-id", "postern-claims", "host", "connection", ":path")
        ),
        option("Dapr_Caller_App_Id", "evil"),
        remove=("x-token", "dapr-caller-namespace"),
        reply=(option("x-judged", "yes"), option("content-length", "0")),
    )
    sent = [
        ("x-user", "eve"),
        ("x_user", "eve"),
        ("x-group", "a"),
        ("x-token", "t"),
        ("connection", "x-user"),
    ]
    answer = await place.call("/asked/echo", *sent)
    seen = [(name.lower(), value) for name, value in json.loads(answer.body)["headers"]]
    assert [value for name, value in seen if name.replace("_", "-") == "x-user"] == ["ann"]
    assert [value for name, value in seen if name == "x-group"] == ["a", "ops"]
    assert dict(seen)["dapr-caller-app-id"] == "web"
    assert dict(seen)["dapr-caller-namespace"] == "default"
    assert not [name for name, value in seen if value == "evil" or name in ("x-token", "postern-claims")]
    assert answer.get("x-judged") == "yes"
    await place.shop.process.line(r"an authorizer sets what it may not: ignored.*field=dapr-caller-app-id")


async def test_a_refusal_is_the_callers_answer(place: Place) -> None:
    place.judge.judge = lambda _: denied(
        401, "log in", option("www-authenticate", "Basic"), option("postern-error", "x")
    )
    answer = await place.call("/asked/1")
    assert (answer.status, answer.body, answer.get("www-authenticate")) == (401, b"log in", "Basic")
    assert answer.get("postern-error") == "denied"
    place.judge.judge = lambda _: denied(403, "")
    answer = await place.call("/asked/1")
    assert json.loads(answer.body)["message"].endswith(
        "access to shop.default is denied by the authorizer judge"
    )
    line = r"access denied.*default/web.*rule=\S+ .*asks=judge denied_by=judge"
    await until_logged(place.shop.process, line, lambda: place.call("/asked/1"))


async def test_grpc_calls_are_asked_about_and_refused_by_code(place: Place) -> None:
    assert await place.echo() == "hi"
    assert place.judge.last.path == f"/{SERVICE}/Unary"
    place.judge.judge = lambda _: denied(403, "not for you")
    error = await place.echo()
    assert isinstance(error, grpc.aio.AioRpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not for you")


async def test_an_app_that_calls_itself_is_asked_about(place: Place) -> None:
    place.judge.judge = lambda _: denied(403, "no")
    assert (await place.call("/else", caller=place.shop)).status == 200
    assert (await place.call("/asked/1", caller=place.shop)).status == 403
    source = place.judge.asked[-1].attributes.source
    assert (source.principal, place.judge.last.path) == ("spiffe://public/ns/default/shop", "/asked/1")


async def test_a_websocket_is_asked_about_at_its_head(place: Place) -> None:
    handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    place.judge.judge = lambda _: denied(403, "no")
    async with connect(place.web.http_port) as caller:
        target = invoke("shop", "/asked/ws")
        await caller.send_head("GET", target, [*handshake, ("Sec-WebSocket-Key", new_key())])
        head = await caller.read_response_head()
    assert (head.second, len(place.judge.asked)) == ("403", 1)


async def test_status_and_metrics_tell_of_authorizers(place: Place) -> None:
    assert (await place.call("/asked/1")).status == 200
    status: Any = await place.shop.status()
    (told,) = status["authorizers"]
    assert (told["name"], told["kind"], told["error"]) == ("judge", "grpc", "")
    metrics = (await request(place.shop.metrics_port, "GET", "/metrics")).body.decode()
    assert 'postern_authorizer_requests_total{authorizer="judge",result="allowed"}' in metrics


async def test_nothing_passes_while_the_authorizer_gives_no_answer(
    place: Place,
) -> None:
    def broken(_: object) -> Any:
        raise RuntimeError("out of order")

    place.judge.judge = broken
    answer = await place.call("/asked/1")
    assert (answer.status, answer.get("postern-error")) == (503, "authorizer")
    assert "could not be authorized" in json.loads(answer.body)["message"]
    error = await place.echo()
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    await place.shop.process.line(r"no answer of an authorizer.*authorizer=judge.*out of order")
    assert (await place.call("/open/1")).status == 200
    place.judge.judge = lambda _: allowed()
    assert (await place.call("/asked/1")).status == 200


@dataclass(slots=True)
class HttpJudge:
    """An authorizer over HTTP/1.1. Mutable state: what it answers, how many on one connection, and what it was asked."""

    answers_each: int = 1_000_000
    connections: int = 0
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    asked: list[Head] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answered = 0
        while (head := await read_head(reader)) is not None:
            if answered >= self.answers_each:  # closes with a question on its way
                break
            self.asked.append(head)
            self.bodies.append(await reader.readexactly(int(head.get("content-length", "0"))))
            writer.write(self.answer)
            await writer.drain()
            answered += 1
            if not self.answer:
                break
        writer.close()

    def says(self, status: str, body: bytes = b"", *fields: str) -> None:
        """Answer so from now on."""
        lines = "".join(
            f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}")
        )
        self.answer = f"{lines}\r\n".encode() + body


@asynccontextmanager
async def http_judge() -> AsyncIterator[HttpJudge]:
    """One that listens on loopback."""
    judge = HttpJudge()
    server = await asyncio.start_server(judge, "127.0.0.1", 0)
    judge.port = server.sockets[0].getsockname()[1]
    try:
        yield judge
    finally:
        server.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPlace:
    """The same with an authorizer over HTTP, and a policy that may be rewritten."""

    web: Sidecar
    shop: Sidecar
    judge: HttpJudge
    file: Path

    async def call(self, path: str, *headers: tuple[str, str], verb: str = "GET") -> Response:
        """The answer to a call to shop."""
        return await request(self.web.http_port, verb, invoke("shop", path), headers=headers)

    async def _generation(self) -> int:
        status: Any = await self.shop.status()
        return int(status["policy"]["generation"])

    async def rewrite(self, text: str) -> None:
        """Write another policy and wait until it is in force."""
        generation = await self._generation()
        self.file.write_text(text)

        async def changed() -> bool:
            return await self._generation() > generation

        await eventually(changed)


@pytest_asyncio.fixture(params=ENGINES, loop_scope="module")
async def over_http(
    request: pytest.FixtureRequest, tmp_path: Path, shared: SharedSentry
) -> AsyncIterator[HttpPlace]:
    """One for the test."""
    engine = ("--engine", str(request.param))
    async with http_judge() as judge, Mesh(tmp_path, shared=shared) as mesh:
        entry = {
            "http": f"http://127.0.0.1:{judge.port}/check",
            "toApp": ["x-user", "dapr-caller-app-id"],
            "headers": ["x-token"],
        }
        file = mesh.write("resources/policy.yaml", asking(entry))
        flags = (*engine, "--profile", "production", "--resources-path", str(file.parent))
        shop = await mesh.sidecar("shop", app=await mesh.http_app(), flags=flags)
        yield HttpPlace(web=await mesh.sidecar("web", flags=engine), shop=shop, judge=judge, file=file)


async def test_over_http_the_head_is_sent_as_envoy_sends_it(over_http: HttpPlace) -> None:
    judge = over_http.judge
    judge.says("200 OK", b"", "X-User: ann", "X-Else: 1", "Dapr-Caller-App-Id: admin")
    sent = [("x-token", "t"), ("authorization", "Bearer x"), ("x-more", "1"), ("x-user", "eve")]
    answer = await over_http.call(
        "/asked/echo?y=1", *sent, ("x-forwarded-client-cert", "URI=evil"), verb="PUT"
    )
    seen = headers_of(answer)
    assert (seen["x-user"], seen["dapr-caller-app-id"], "x-else" in seen) == ("ann", "web", False)
    (head,) = judge.asked
    assert (head.first, head.second) == ("PUT", "/check/asked/echo?y=1")
    assert (head.get("x-token"), head.get("authorization"), head.get("x-more")) == ("t", "Bearer x", "")
    uri = "URI=spiffe://public/ns/default/web"
    assert head.get_all("x-forwarded-client-cert") == [f"By=spiffe://public/ns/default/shop;{uri}"]
    judge.says("302 Found", b"go", "Location: https://login.example.com/")
    answer = await over_http.call("/asked/1")
    assert (answer.status, answer.get("location"), answer.body) == (302, "https://login.example.com/", b"go")
    judge.says("500 Oops")
    assert (await over_http.call("/asked/1")).get("postern-error") == "authorizer"


async def test_questions_over_http_share_connections(over_http: HttpPlace) -> None:
    judge = over_http.judge
    for number in range(20):
        assert (await over_http.call(f"/asked/{number}")).status == 200
    assert len(judge.asked) == 20
    assert (
        judge.connections < 20
    )  # one that nobody wants for a while ends, and a busy machine makes for pauses
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(over_http.call("/asked/1")) for _ in range(20)]
    assert {call.result().status for call in calls} == {200}


async def test_a_question_that_meets_the_end_of_its_connection_is_asked_again(over_http: HttpPlace) -> None:
    over_http.judge.answers_each = 1
    for number in range(10):
        assert (await over_http.call(f"/asked/{number}")).status == 200
    assert len(over_http.judge.asked) == 10


async def test_opas_data_api_is_asked_with_the_input_of_its_plugin(over_http: HttpPlace) -> None:
    judge = over_http.judge
    await over_http.rewrite(asking({"opa": f"http://127.0.0.1:{judge.port}/v1/data/app/allow"}))
    for body, status in (
        (b'{"result": true}', 200),
        (b'{"result": false}', 403),
        (b'{"result": {"allowed": true, "headers": {"x-user": "ann"}}}', 200),
        (b'{"result": {"allowed": false, "http_status": 418, "body": "tea"}}', 418),
        (b"{}", 503),
        (b'{"result": {"headers": {}}}', 503),
        (b'{"result": {"allowed": true, "headers": {"x-user": "a\\r\\nb: c"}}}', 503),
        (b'{"result": "yes"}', 503),
    ):
        judge.says("200 OK", body)
        assert (await over_http.call("/asked/a%20b?x=1&x=2")).status == status, body
    head, given = judge.asked[0], json.loads(judge.bodies[0])["input"]
    assert (head.first, head.second) == ("POST", "/v1/data/app/allow")
    assert given["attributes"]["source"]["principal"] == "spiffe://public/ns/default/web"
    assert given["attributes"]["request"]["http"]["path"] == "/asked/a%20b?x=1&x=2"
    assert (given["parsed_path"], given["parsed_query"]) == (["asked", "a b"], {"x": ["1", "2"]})


async def test_answers_are_kept_only_where_the_policy_says_so(over_http: HttpPlace) -> None:
    judge = over_http.judge
    for _ in range(2):
        assert (await over_http.call("/asked/1")).status == 200
    assert len(judge.asked) == 2
    entry = {"http": f"http://127.0.0.1:{judge.port}", "headers": ["x-token"], "cache": "10m"}
    await over_http.rewrite(asking(entry))
    judge.asked.clear()
    for token in ("a", "a", "b", "a"):
        assert (await over_http.call("/asked/1", ("x-token", token), ("x-else", token))).status == 200
    judge.says("403 Forbidden")
    for path in ("/asked/2", "/asked/2", "/asked/2?x=1"):
        assert (await over_http.call(path)).status == 403
    assert len(judge.asked) == 4


async def test_a_slow_or_absent_authorizer_is_waited_for_no_longer_than_said(over_http: HttpPlace) -> None:
    judge = over_http.judge
    judge.answer = b""
    url = f"http://127.0.0.1:{judge.port}"
    with socket.create_server(("127.0.0.1", 0)) as stuck:  # whoever connects waits
        late = f"http://127.0.0.1:{stuck.getsockname()[1]}"
        for entry, status in (
            ({"http": late, "timeout": "50ms"}, 503),
            ({"http": url}, 503),
            ({"http": "http://127.0.0.1:1"}, 503),
            ({"grpc": "127.0.0.1:1"}, 503),
            ({"grpc": "127.0.0.1:1", "failOpen": True}, 200),
        ):
            await over_http.rewrite(asking(entry))
            answer = await over_http.call("/asked/1")
            said = "" if status == 200 else "authorizer"
            assert (answer.status, answer.get("postern-error")) == (status, said)


async def test_no_caller_sends_what_the_authorizer_alone_gives(over_http: HttpPlace) -> None:
    over_http.judge.says("200 OK")
    answer = await over_http.call("/asked/echo", ("x-user", "admin"), ("x_user", "admin"), ("x-else", "1"))
    seen = headers_of(answer)
    assert (seen.get("x-user"), seen.get("x_user"), seen["x-else"]) == (None, None, "1")


async def test_no_path_leads_out_of_that_of_the_url(over_http: HttpPlace) -> None:
    everything = rule("all", "authorize", "*", authorizer="judge", to={"paths": ["/{**}"]})
    await over_http.rewrite(asking({"http": f"http://127.0.0.1:{over_http.judge.port}/check"}, everything))
    over_http.judge.asked.clear()
    for path in ("/..%2fhealth", "/%2e%2e/health", "/..;/health", "/a/..%5c..%5chealth"):
        sent = await request(over_http.web.http_port, "GET", path, headers=[("dapr-app-id", "shop")])
        assert (sent.status, sent.get("postern-error")) == (403, "denied"), path
    assert over_http.judge.asked == []
    assert (await over_http.call("/a/..%2fb")).status == 200


async def test_an_audited_policy_asks_nobody(over_http: HttpPlace) -> None:
    entry = {"http": f"http://127.0.0.1:{over_http.judge.port}"}
    await over_http.rewrite(asking(entry, mode="audit"))
    over_http.judge.says("403 Forbidden")
    answer = await over_http.call("/asked/1")
    assert (answer.status, over_http.judge.asked) == (403, [])  # by the profile: there is no other policy
    await over_http.rewrite(
        "\n---\n".join(
            (
                asking(entry, mode="audit"),
                policy(rule("all", "allow", "*", to={"paths": ["/{**}"]}), name="all"),
            )
        )
    )
    assert (await over_http.call("/asked/1")).status == 200
    assert over_http.judge.asked == []


async def test_a_policy_that_names_nobody_to_ask_is_not_taken(over_http: HttpPlace) -> None:
    over_http.file.write_text(policy(rule("asked", "authorize", "web", authorizer="nobody")))
    await over_http.shop.process.line(r"policy\.yaml:1: spec\.rules\[0\]\.authorizer: `nobody` is not in")
    assert (await over_http.call("/asked/1")).status == 200
