"""Timeouts and retries between real proxies; attempts are counted where they arrive.

Where postern decides otherwise than Dapr on purpose, the test says so.
"""

import asyncio
import json
import socket
import struct
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = (
    pytest.mark.serial
)  # timeouts of 300 ms and counted attempts: beside others a call may not even arrive in time

# One caller's rules. A policy goes by the callee's spelling, so `a` and `a.default` are one app under two policies.
RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    timeouts: {short: 300ms}
    retries:
      three: {policy: constant, duration: 20ms, maxRetries: 3}
      three-5xx: {policy: constant, duration: 20ms, maxRetries: 3, matching: {httpStatusCodes: "500-599"}}
      two-503: {policy: constant, duration: 20ms, maxRetries: 2, matching: {httpStatusCodes: "503"}}
      slow-three: {policy: constant, duration: 500ms, maxRetries: 3}
      grpc-two: {policy: constant, duration: 20ms, maxRetries: 2}
      grpc-two-14: {policy: constant, duration: 20ms, maxRetries: 2, matching: {gRPCStatusCodes: "14"}}
  targets:
    apps:
      a: {retry: three}
      a.default: {retry: three-5xx}
      b: {timeout: short}
      b.default: {timeout: short, retry: three}
      bare: {}
      leaving.default: {retry: slow-three}
      leaving: {retry: slow-three}
      refusing-empty: {}
      refusing-two: {retry: two-503}
      g: {retry: grpc-two}
      g.default: {retry: grpc-two-14}
      t: {timeout: short}
      web: {retry: grpc-two}
"""
OVERRIDE = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: override}
spec:
  policies:
    retries:
      DaprBuiltInServiceRetries: {policy: constant, duration: 20ms, maxRetries: -1}
"""


class Refuser:
    """A port that resets each connection and counts them: an endpoint whose proxy is broken. One thread."""

    def __init__(self) -> None:
        self.count = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="refuser", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.count += 1
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    def close(self) -> None:
        """Listen no more; wakes the thread."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`web` calls under RESILIENCY, `patient` under OVERRIDE; `refused` counts who knocks at the refusing callees."""

    mesh: Mesh
    http: App
    echo: App
    web: Sidecar
    patient: Sidecar
    refused: Refuser

    async def call(self, callee: str, path: str, **how: Any) -> Response:
        """A GET (or as told) from `web` by Dapr's path."""
        return await invoke(self.web, callee, path, **how)

    async def bodies(self, key: str) -> list[int]:
        """The bytes of each attempt's body that came to /script under that key."""
        found: list[int] = json.loads((await request(self.http.port, "GET", "/stats")).body)["scripts"].get(
            key, []
        )
        return found

    async def hits(self, path: str) -> int:
        """How often a path of the HTTP app was asked for."""
        requests: dict[str, int] = json.loads((await request(self.http.port, "GET", "/stats")).body)[
            "requests"
        ]
        return requests.get(path, 0)

    async def grpc_hits(self, key: str) -> int:
        """How often the gRPC app counted `key`."""
        async with grpc.aio.insecure_channel(f"localhost:{self.echo.port}") as channel:
            return (await EchoClient(channel).probe()).calls.get(key, 0)

    @contextmanager
    def counting(self) -> Iterator["Counted"]:
        """Count what knocks at the refusing callees meanwhile."""
        counted = Counted(began=time.monotonic(), before=self.refused.count)
        yield counted
        counted.attempts = self.refused.count - counted.before
        counted.took_s = time.monotonic() - counted.began


@dataclass(slots=True, kw_only=True)
class Counted:
    """Connections and seconds of one `with`."""

    began: float
    before: int
    attempts: int = 0
    took_s: float = 0.0


async def invoke(sidecar: Sidecar, callee: str, path: str, method: str = "GET", **how: Any) -> Response:
    """A call by Dapr's path."""
    return await request(
        sidecar.http_port, method, f"/v1.0/invoke/{callee}/method/{path}", timeout_s=20.0, **how
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One for the module: tests tell their calls apart by keys."""
    refused = Refuser()
    try:
        async with Mesh(tmp_path_factory.mktemp("resiliency")) as mesh:
            http, echo = await mesh.http_app(), await mesh.grpc_app()
            static = [
                f"{name}: 127.0.0.1:{refused.port}" for name in ("refusing", "refusing-empty", "refusing-two")
            ]
            (mesh.root / "endpoints.yaml").write_text("\n".join(static) + "\n")
            mesh.write("web/resiliency.yaml", RESILIENCY)
            mesh.write("patient/resiliency.yaml", OVERRIDE)
            async with asyncio.TaskGroup() as tasks:
                for name in ("a", "b", "plain", "bare", "leaving"):
                    tasks.create_task(mesh.sidecar(name, app=http))
                for name in ("g", "t"):
                    tasks.create_task(mesh.sidecar(name, app=echo))
                tasks.create_task(mesh.sidecar("closed", app_port=free_port()))
                web = tasks.create_task(
                    mesh.sidecar("web", app=http, flags=("--resources-path", str(mesh.files / "web")))
                )
                patient = tasks.create_task(
                    mesh.sidecar("patient", flags=("--resources-path", str(mesh.files / "patient")))
                )
            yield Scene(
                mesh=mesh, http=http, echo=echo, web=web.result(), patient=patient.result(), refused=refused
            )
    finally:
        refused.close()


def new_key() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


# --- an app's own answers ----------------------------------------------------------------------------------------------------

ANSWERS = (
    ("plain", "500", 1, 500),
    ("plain", "404", 1, 404),
    ("bare", "500", 1, 500),
    ("a", "500", 4, 500),
    ("a", "404", 4, 404),
    ("a", "302", 1, 302),
    ("a", "304", 1, 304),
    ("a", "500,500,200", 3, 200),
    ("a.default", "404", 1, 404),
    ("a.default", "503", 4, 503),
    ("a.default", "503,404", 2, 404),
    ("web", "500", 3, 500),  # itself
)


@pytest.mark.parametrize(("callee", "codes", "attempts", "status"), ANSWERS)
async def test_app_is_asked_as_often_as_the_policy_says(
    scene: Scene, callee: str, codes: str, attempts: int, status: int
) -> None:
    key = new_key()
    answer = await scene.call(callee, f"script?key={key}&codes={codes}")
    assert answer.status == status
    assert len(await scene.bodies(key)) == attempts
    if status not in (302, 304):
        assert answer.body == f"attempt {attempts}".encode()  # the last one's


async def test_body_by_length_is_sent_whole_each_time(scene: Scene) -> None:
    key = new_key()
    answer = await scene.call("a", f"script?key={key}&codes=500,200", method="POST", body=b"x" * 60_000)
    assert answer.status == 200
    assert await scene.bodies(key) == [60_000, 60_000]


async def test_body_over_the_replay_limit_is_sent_once(scene: Scene) -> None:
    # Otherwise than in Dapr: beyond 64 KiB a body is not kept, but under the daprd profile (test_profiles).
    key = new_key()
    answer = await scene.call("a", f"script?key={key}&codes=500,200", method="POST", body=b"x" * 100_000)
    assert answer.status == 500
    assert await scene.bodies(key) == [100_000]


async def test_chunked_body_is_sent_once(scene: Scene) -> None:
    key = new_key()
    answer = await scene.call("a", f"script?key={key}&codes=500,200", method="POST", chunks=[b"one", b"two"])
    assert answer.status == 500
    assert await scene.bodies(key) == [6]


# --- callees that can't be reached -------------------------------------------------------------------------------------------


async def test_refused_connection_is_tried_four_times_in_three_seconds(scene: Scene) -> None:
    with scene.counting() as counted:
        answer = await scene.call("refusing", "x")
    assert answer.status == 500
    assert counted.attempts == 4
    assert 2.9 < counted.took_s < 10.0
    said = json.loads(answer.body)
    assert said["errorCode"] == "ERR_DIRECT_INVOKE"
    assert said["message"].startswith(
        "failed to invoke, id: refusing, err: could not reach the proxy of refusing"
    )


async def test_chunked_call_to_a_refusing_callee_fails_at_once(scene: Scene) -> None:
    with scene.counting() as counted:
        answer = await scene.call("refusing", "x", method="POST", chunks=[b"x"])
    assert answer.status == 500
    assert counted.attempts == 1
    assert counted.took_s < 2.0


async def test_entry_without_policies_turns_the_builtin_retry_off(scene: Scene) -> None:
    with scene.counting() as counted:
        answer = await scene.call("refusing-empty", "x")
    assert (answer.status, counted.attempts) == (500, 1)


async def test_entry_under_the_short_name_turns_it_off_for_the_long_one(scene: Scene) -> None:
    with scene.counting() as counted:
        answer = await scene.call("refusing-empty.default", "x")
    assert (answer.status, counted.attempts) == (500, 1)


async def test_failure_to_connect_is_retried_whatever_codes_match(scene: Scene) -> None:
    with scene.counting() as counted:
        answer = await scene.call("refusing-two", "x")
    assert (answer.status, counted.attempts) == (500, 3)
    assert answer.get("postern-error") == "connect"


async def test_builtin_retry_can_be_made_faster_but_not_endless(scene: Scene) -> None:
    with scene.counting() as counted:
        answer = await invoke(scene.patient, "refusing", "x")
    assert (answer.status, counted.attempts) == (500, 4)
    assert counted.took_s < 2.5


async def test_closed_app_port_is_one_attempt_and_names_the_app(scene: Scene) -> None:
    began = time.monotonic()
    answer = await scene.call("closed", "x")
    assert answer.status == 500
    assert answer.get("postern-error") == "no-endpoint"
    assert time.monotonic() - began < 2.5  # it is held for other hosts to answer, and not tried again
    assert "its app does not listen yet on port" in json.loads(answer.body)["message"]


# --- timeouts ----------------------------------------------------------------------------------------------------------------


async def test_timeout_ends_the_one_attempt(scene: Scene) -> None:
    before = await scene.hits("/slow")
    began = time.monotonic()
    answer = await scene.call("b", "slow?s=60")
    assert answer.status == 500
    assert 0.29 < time.monotonic() - began < 20.0
    assert answer.get("postern-error") == "timeout"
    assert json.loads(answer.body)["errorCode"] == "ERR_DIRECT_INVOKE"
    assert await scene.hits("/slow") == before + 1


async def test_timeout_is_per_attempt(scene: Scene) -> None:
    before = await scene.hits("/slow")
    began = time.monotonic()
    answer = await scene.call("b.default", "slow?s=60")
    assert answer.status == 500
    assert 1.2 < time.monotonic() - began < 20.0
    assert await scene.hits("/slow") == before + 4


@pytest.mark.parametrize("callee", ["b", "b.default"])
async def test_timeout_within_a_body_ends_it_visibly_and_asks_no_more(scene: Scene, callee: str) -> None:
    # Otherwise than in Dapr: no cleanly ended half of a body, and no second call behind a head already sent.
    for _ in range(20):
        async with asyncio.timeout(30.0), connect(scene.web.http_port) as connection:
            await connection.send_head("GET", f"/v1.0/invoke/{callee}/method/sse?n=50&every_s=0.1")
            head = await connection.read_response_head()
            if head.second != "200":  # on a busy machine the timeout may come before the head: another call
                continue
            asked = await scene.hits("/sse")
            with pytest.raises(HttpSyntaxError):
                async for _ in connection.body("GET", head, []):
                    pass
        assert await scene.hits("/sse") == asked
        return
    pytest.fail("no head came before the timeout")


async def test_caller_that_leaves_ends_the_attempts(scene: Scene) -> None:
    key = new_key()
    async with connect(scene.web.http_port) as connection:
        await connection.send_head("GET", f"/v1.0/invoke/leaving/method/script?key={key}&codes=500")
        async with asyncio.timeout(30.0):
            while len(await scene.bodies(key)) < 2:  # noqa: ASYNC110 - a process has no events
                await asyncio.sleep(0.02)
    # Only the absence of a third attempt is to be seen, so its time must pass.
    await asyncio.sleep(0.8)
    assert len(await scene.bodies(key)) == 2


# --- gRPC --------------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def channel(scene: Scene) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the caller's proxy."""
    async with grpc.aio.insecure_channel(f"localhost:{scene.web.grpc_port}") as opened:
        yield opened


def client(channel: grpc.aio.Channel, callee: str, *more: tuple[str, str]) -> EchoClient:
    """A client of that callee."""
    return EchoClient(channel, metadata=(("dapr-app-id", callee), *more))


GRPC = (
    ("t", "14", 1, 14),
    ("g.default", "5", 1, 5),
    ("g.default", "14", 3, 14),
    ("g.default", "14,5", 2, 5),
    ("g", "13,0", 2, 0),
    ("g", "13", 3, 13),
)


@pytest.mark.parametrize(("callee", "codes", "attempts", "code"), GRPC)
async def test_grpc_app_is_asked_as_often_as_the_policy_says(
    scene: Scene, channel: grpc.aio.Channel, *, callee: str, codes: str, attempts: int, code: int
) -> None:
    key = new_key()
    call = client(channel, callee).unary(EchoRequest(message=f"{key}:{codes}"), method="Script")
    met = await call.code()
    assert met.value[0] == code
    assert await scene.grpc_hits(key) == attempts
    if code:
        assert await call.details() == f"attempt {attempts}"


@pytest.mark.parametrize("declared", [(), (("dapr-stream", "true"),)], ids=["undeclared", "declared"])
async def test_stream_of_requests_passes_under_a_retry_policy(
    channel: grpc.aio.Channel, declared: tuple[tuple[str, str], ...]
) -> None:
    # Otherwise than in Dapr where the stream is undeclared: it is carried, and only what is kept of it is sent again.
    requests = [EchoRequest(message=text) for text in ("a", "b", "c")]
    reply = await client(channel, "g", *declared).client_stream(requests)
    assert (reply.message, reply.number) == ("a b c", 3)


async def test_timeout_cuts_a_stream_unless_it_is_declared(channel: grpc.aio.Channel) -> None:
    wanted = EchoRequest(count=12, delay_s=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in client(channel, "t").server_stream(wanted):
            pass
    # For gRPC no reset: a status in trailers is as visible, and says more.
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    replies = [
        reply.number async for reply in client(channel, "t", ("dapr-stream", "1")).server_stream(wanted)
    ]
    assert replies == list(range(12))


async def test_policys_timeout_travels_as_the_deadline(channel: grpc.aio.Channel) -> None:
    reply = await client(channel, "t").unary(EchoRequest(message="x"), timeout_s=8.0)
    assert 0 < reply.deadline_s <= 0.31


# --- several instances -------------------------------------------------------------------------------------------------------


async def test_killed_instance_fails_no_call_that_may_go_again(mesh: Mesh) -> None:
    """Safe defaults: what never reached an app goes to the other instance at once; a broken GET without a body may too."""
    async with asyncio.TaskGroup() as tasks:
        one = tasks.create_task(mesh.http_app("one"))
        two = tasks.create_task(mesh.http_app("two"))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(mesh.sidecar("cart", app=one.result()))
        tasks.create_task(mesh.sidecar("cart", app=two.result()))
        start = tasks.create_task(mesh.sidecar("web"))
    web = start.result()
    seen: list[str] = []
    enough = asyncio.Event()

    async def calls() -> None:
        while not enough.is_set():
            answer = await invoke(web, "cart", "echo")
            assert answer.status == 200, answer.body
            seen.append(json.loads(answer.body)["app"])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(calls())
        async with asyncio.timeout(15.0):
            while not {"one", "two"} <= set(seen):  # noqa: ASYNC110 - both are seen soon
                await asyncio.sleep(0.02)
        first.result().process.kill()
        after = len(seen)
        async with asyncio.timeout(20.0):
            while len(seen) < after + 60:  # noqa: ASYNC110 - counted where it grows
                await asyncio.sleep(0.02)
        enough.set()
    assert seen[-1] == "two"


# --- documents ---------------------------------------------------------------------------------------------------------------

UNKNOWN = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: x}
spec:
  targets:
    apps:
      plain:
        retry: nowhere
"""


async def test_unknown_policy_name_stops_the_start_unless_faults_are_forgiven(
    mesh: Mesh, http_app: App
) -> None:
    # Otherwise than in Dapr: it is an error with file and line; --config-lenient makes it Dapr's "no policy".
    path = mesh.write("resources/faulty.yaml", UNKNOWN)
    flags = ("--resources-path", str(path.parent))
    process = mesh.processes.start_python("proxy", *mesh.arguments("web", flags=flags), name="strict")
    assert await process.ended() != 0
    assert f"{path}:8: spec.targets.apps.plain.retry:" in process.output
    await mesh.sidecar("plain", app=http_app)
    web = await mesh.sidecar("web", flags=(*flags, "--config-lenient"))
    policy = (await web.status())["policy"]
    assert isinstance(policy, dict)
    assert any("nowhere" in warning for warning in policy["warnings"])
    answer = await invoke(web, "plain", "script?key=lenient&codes=500")
    assert (answer.status, answer.body) == (500, b"attempt 1")
    # A bad edit leaves the rules as they are.
    path.write_text("kind: [")
    await web.process.line("policies not reloaded")
    assert (await invoke(web, "plain", "script?key=again&codes=500")).body == b"attempt 1"
