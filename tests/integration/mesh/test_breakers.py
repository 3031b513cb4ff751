"""Circuit breakers between real proxies: what callers are told on each surface, and what is shown of them."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually
from tests.support.dapr_client import DaprClient
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import request
from tests.support.http_wire import Response, read_head
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")  # that of the app, which runs here

RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: guards, namespace: prod}
spec:
  policies:
    timeouts: {long: %(timeout)s}
    retries:
      three: {policy: constant, duration: 1ms, maxRetries: 3}
      DaprBuiltInServiceRetries: {policy: constant, duration: 1ms, maxRetries: 3}
    circuitBreakers:
      third: {timeout: 1h, trip: %(trip)s}
      second: {timeout: 1h, trip: consecutiveFailures >= 2}
      brief: {timeout: 300ms, maxRequests: 2, trip: consecutiveFailures >= 1}
      DefaultAppCircuitBreakerPolicy: {timeout: 1h, trip: consecutiveFailures >= 2}
  targets:
    apps:
      shop: {circuitBreaker: third, timeout: long}
      shop.default: {circuitBreaker: third, retry: three}
      web: {circuitBreaker: brief}
      grpc: {circuitBreaker: second}
      outside: {circuitBreaker: second}
      elsewhere: {circuitBreaker: second}
"""
ENDPOINT = """
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: outside}
spec: {baseUrl: "http://localhost:%(port)d/base"}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: elsewhere}
spec: {baseUrl: "http://localhost:%(port)d/base"}
"""
UNDECLARED = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: undeclared}
spec:
  policies: {circuitBreakers: {never: {trip: failures > 0}}}
  targets: {apps: {shop: {circuitBreaker: never}}}
"""


class Fickle:
    """An app whose paths answer as a test says: 500, unless they are to be well; some wait for `go`."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.well: set[str] = set()
        self.slow: set[str] = set()
        self.go = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await read_head(reader):
                path = head.second.partition("?")[0]
                self.asked[path] += 1
                if path in self.slow:
                    await self.go.wait()
                status = 200 if path in self.well or path == "/dapr/config" else 500
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 3\r\n\r\napp" % status)
        except (OSError, HttpSyntaxError):
            pass
        finally:
            writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`web` calls `shop`, which is `app`, and `grpc`; paths tell tests apart."""

    mesh: Mesh
    app: Fickle
    web: Sidecar
    rules: Path

    async def call(self, callee: str, path: str, *, method: str = "GET") -> Response:
        """A call by Dapr's path."""
        return await request(self.web.http_port, method, f"/v1.0/invoke/{callee}/method/{path}")

    async def breaker(self, method: str) -> dict[str, object]:
        """What `/status` says of the breaker of a method; empty where it says nothing."""
        told = (await self.web.status())["circuitBreakers"]
        assert isinstance(told, list)
        return next((one for one in told if one["method"] == method), {})

    async def until(self, method: str, state: str) -> None:
        async with asyncio.timeout(10.0):
            while (await self.breaker(method)).get("state") != state:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """One for each engine."""
    app = Fickle()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(app, "127.0.0.1", 0)
        stack.callback(server.close)
        stack.callback(app.go.set)
        port = int(server.sockets[0].getsockname()[1])
        mesh = await stack.enter_async_context(Mesh(tmp_path_factory.mktemp("breakers")))
        (mesh.root / "endpoints.yaml").write_text(f"refusing: 127.0.0.1:{free_port()}\n")
        rules = mesh.write(
            "web/resiliency.yaml", RESILIENCY % {"timeout": "30s", "trip": "consecutiveFailures >= 3"}
        )
        mesh.write("web/endpoint.yaml", ENDPOINT % {"port": port})
        mesh.write("lenient/resiliency.yaml", UNDECLARED)
        echo = await mesh.grpc_app()
        engine = ("--engine", str(request.param), "--log-level", "info")
        async with asyncio.TaskGroup() as tasks:
            shop = tasks.create_task(mesh.sidecar("shop", app_port=port, flags=engine))
            tasks.create_task(mesh.sidecar("grpc", app=echo, flags=engine))
            resources = ("--resources-path", str(mesh.files / "web"))
            web = tasks.create_task(mesh.sidecar("web", app_port=port, flags=(*engine, *resources)))
        await shop.result().wait_app()
        yield Scene(mesh=mesh, app=app, web=web.result(), rules=rules)


OPEN = "circuit breaker is open"


def message(answer: Response) -> str:
    return str(json.loads(answer.body)["message"])


async def test_third_failure_opens_it_and_the_caller_hears_daprs_words(scene: Scene) -> None:
    assert [(await scene.call("shop", f"a?{number}")).status for number in range(3)] == [500] * 3
    refused = await scene.call("shop", "a")
    assert (refused.status, refused.get("postern-error")) == (500, "breaker-open")
    told = json.loads(refused.body)
    assert (told["errorCode"], told["message"]) == (
        "ERR_DIRECT_INVOKE",
        f"failed to invoke, id: shop, err: {OPEN}",
    )
    assert (await scene.call("shop", "a", method="POST")).get("postern-error") == "breaker-open"
    assert (await scene.call("shop", "b")).body == b"app"
    assert (scene.app.asked["/a"], scene.app.asked["/b"]) == (3, 1)


async def test_on_own_surfaces_it_is_unavailable_and_says_when_to_come_again(scene: Scene) -> None:
    for _ in range(3):
        await scene.call("shop", "own")
    refused = await request(scene.web.http_port, "GET", "/own", headers=[("host", "shop.localhost")])
    assert (refused.status, refused.get("postern-error")) == (503, "breaker-open")
    told = json.loads(refused.body)
    assert told["errorCode"] == "ERR_BREAKER_OPEN"
    assert told["message"].startswith(
        "shop.default failed this method too often, so its circuit breaker is open: third lets calls try again in 3"
    )
    assert scene.app.asked["/own"] == 3


async def test_breaker_that_opens_within_the_retries_ends_them(scene: Scene) -> None:
    answer = await scene.call("shop.default", "retried")
    assert (answer.status, answer.get("postern-error")) == (500, "breaker-open")
    assert message(answer) == f"failed to invoke, id: shop.default, err: {OPEN}"
    assert scene.app.asked["/retried"] == 3


async def test_half_open_two_probe_and_others_are_refused_until_it_closes(scene: Scene) -> None:
    assert (await scene.call("web", "probed")).body == b"app"
    await scene.until("/probed", "half-open")
    scene.app.well.add("/probed")
    scene.app.slow.add("/probed")
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(scene.call("web", "probed")) for _ in range(5)]
        _, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(waiting) > 2:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        scene.app.go.set()
    found = sorted((call.result().status, call.result().get("postern-error")) for call in calls)
    assert found == [*[(200, "")] * 2, *[(500, "breaker-probing")] * 3]
    texts = {message(call.result()) for call in calls if call.result().status == 500}
    assert texts == {"failed to invoke, id: web, err: too many requests"}
    assert (await scene.breaker("/probed"))["state"] == "closed"
    assert scene.app.asked["/probed"] == 3


async def test_grpc_counts_any_status_but_ok_and_is_refused_as_unknown(scene: Scene) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{scene.web.grpc_port}") as channel:
        client = EchoClient(channel, metadata=(("dapr-app-id", "grpc"),))
        ended = []
        for method in ("Script", "Script", "Script", "Unary"):
            call = client.unary(EchoRequest(message="key:5"), method=method)
            marks = dict(await call.trailing_metadata())
            ended.append((await call.code(), await call.details(), marks.get("postern-error")))
    assert [code.name for code, *_ in ended] == ["NOT_FOUND", "NOT_FOUND", "UNKNOWN", "OK"]
    assert ended[2][1:] == (OPEN, "breaker-open")


async def test_invoke_service_is_refused_as_unknown(scene: Scene) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{scene.web.grpc_port}") as channel:
        client = DaprClient(channel)
        ended = [await client.invoke("shop", "invoked", verb="GET") for _ in range(4)]
    assert ended[3].code is grpc.StatusCode.UNKNOWN
    assert ended[3].text == OPEN
    assert scene.app.asked["/invoked"] == 3


async def test_built_in_retry_is_one_failure_to_a_default_breaker(scene: Scene) -> None:
    answers = [await scene.call("refusing", "x") for _ in range(3)]
    assert [answer.get("postern-error") for answer in answers] == ["connect", "connect", "breaker-open"]
    counters = (await scene.breaker("/x")).get("policy")
    assert counters == "DefaultAppCircuitBreakerPolicy"


async def test_endpoint_outside_of_the_mesh_has_one_for_all_its_paths(scene: Scene) -> None:
    await scene.call("outside", "one")
    await scene.call("outside", "two")
    refused = await scene.call("outside", "three")
    assert message(refused) == f"failed to invoke, id: outside, err: {OPEN}"
    assert (scene.app.asked["/base/one"], scene.app.asked["/base/three"]) == (1, 0)


async def until_metrics(web: Sidecar, *wanted: tuple[str, str, str]) -> None:
    """Until the metrics of `shop` are there: name, state, and how the value begins."""
    of = 'app_id="web",flow_direction="outbound",name="guards",namespace="prod",policy="circuitbreaker"'
    lines = [
        f'dapr_resiliency_{name}{{{of},status="{state}",target="app_shop"}} {value}'
        for name, state, value in wanted
    ]
    async with asyncio.timeout(10.0):
        while True:
            found = (await request(web.metrics_port, "GET", "/metrics")).body.decode()
            if all(line in found for line in lines):
                return
            await asyncio.sleep(0.05)


async def test_what_it_did_is_in_status_log_metrics_and_explain(scene: Scene) -> None:
    for _ in range(5):
        await scene.call("shop", "shown")
    shown = await scene.breaker("/shown")
    assert 3590 < float(str(shown.pop("probesInS"))) <= 3600
    zero = dict.fromkeys(
        ("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures"), 0
    )
    assert shown == {
        "target": "shop",
        "method": "/shown",
        "policy": "third",
        "state": "open",
        "counters": zero,
    }
    await scene.web.process.line(
        r"circuit breaker opened.*before=closed callee=shop consecutiveFailures=3 .*method=/shown policy=third requests=3 "
    )
    await until_metrics(
        scene.web,
        ("cb_state", "open", "1.0"),
        ("cb_state", "closed", "0.0"),
        ("activations_total", "open", ""),
        ("count", "closed", ""),
        ("count", "open", ""),
    )
    told = json.loads((await scene.web.admin("/explain?method=GET&url=/v1.0/invoke/shop/method/shown")).body)
    assert (told["breaker"]["method"], told["breaker"]["state"]) == ("/shown", "open")


async def test_metrics_tell_methods_apart_where_a_flag_says_so(scene: Scene) -> None:
    matching = "kind: Configuration\nspec: {metrics: {http: {pathMatching: ['/told/{id}']}}}\n"
    configuration = str(scene.mesh.write("paths.yaml", matching))
    resources = ("--resources-path", str(scene.rules.parent))
    status: Any = await scene.web.status()
    flags = ("--engine", status["engine"], "--metrics-resiliency-paths", "--config", configuration)
    teller = await scene.mesh.sidecar("teller", flags=(*flags, *resources))
    for _ in range(4):
        await request(teller.http_port, "GET", "/v1.0/invoke/shop/method/told/1")
    of = 'app_id="teller",flow_direction="outbound",name="guards",namespace="prod",path="/told/{id}",policy="circuitbreaker"'
    wanted = [
        f'dapr_resiliency_{name}{{{of},status="{state}",target="app_shop"}} {value}'
        for name, state, value in (
            ("cb_state", "open", "1.0"),
            ("count", "closed", "3.0"),
            ("count", "open", "1.0"),
            ("activations_total", "open", "1.0"),
        )
    ]

    async def is_told() -> bool:
        found = (await request(teller.metrics_port, "GET", "/metrics")).body.decode()
        return all(line in found for line in wanted)

    await eventually(is_told)
    assert (await teller.end()) == 0


async def test_reload_keeps_the_state_of_breakers_that_it_leaves_alone(scene: Scene) -> None:
    for _ in range(3):
        await scene.call("shop", "kept")
    for _ in range(2):
        await scene.call("elsewhere", "kept")
    generation = await _generation(scene)
    scene.rules.write_text(RESILIENCY % {"timeout": "20s", "trip": "consecutiveFailures >= 3"})
    generation = await _generation(scene, after=generation)
    assert (await scene.call("shop", "kept")).get("postern-error") == "breaker-open"
    scene.rules.write_text(RESILIENCY % {"timeout": "20s", "trip": "consecutiveFailures >= 4"})
    await _generation(scene, after=generation)
    assert (await scene.call("shop", "kept")).body == b"app"
    assert (await scene.call("elsewhere", "kept")).get("postern-error") == "breaker-open"
    scene.rules.write_text(RESILIENCY % {"timeout": "30s", "trip": "consecutiveFailures >= 3"})
    await _generation(scene, after=generation + 1)


async def _generation(scene: Scene, *, after: int = -1) -> int:
    async with asyncio.timeout(10.0):
        while True:
            policy = (await scene.web.status())["policy"]
            assert isinstance(policy, dict)
            if int(policy["generation"]) > after:
                return int(policy["generation"])
            await asyncio.sleep(0.05)


async def test_trip_with_an_undeclared_name_is_an_error_and_never_opens_where_lenience_is_asked_for(
    scene: Scene,
) -> None:
    mesh = scene.mesh
    flags = ("--resources-path", str(mesh.files / "lenient"))
    process = mesh.processes.start_python("proxy", *mesh.arguments("strict", flags=flags), name="strict")
    assert await process.ended() != 0
    assert (
        "resiliency.yaml:6: spec.policies.circuitBreakers.never.trip: unknown name 'failures'"
        in process.output
    )
    lenient = await mesh.sidecar("lenient", flags=(*flags, "--config-lenient"))
    for _ in range(9):
        answer = await request(lenient.http_port, "GET", "/v1.0/invoke/shop/method/undeclared")
        assert answer.body == b"app"
