"""Faults of a Traffic between real proxies, on both engines, with curl and grpcio: what callers see, and what is told of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.integration.mesh.test_limits import HEAD, Scene
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.mesh import Mesh, SharedSentry
from tests.support.proto.echo_pb2 import EchoRequest

OF_WEB = f"""{HEAD}  targets:
    apps:
      shop:
        faults:
          - {{name: broken, abort: {{status: 503, grpc: 9}}, to: {{paths: ["/orders/{{**}}"]}}}}
          - {{name: tagged, abort: {{status: 418}}, when: {{header: {{x-test: [teapot]}}}}}}
          - {{name: cut, truncate: 10, to: {{paths: ["/bytes/{{**}}"]}}}}
      echo:
        faults:
          - {{name: no-go, abort: {{grpc: 9}}, to: {{grpc: {{services: [testing.EchoService]}}}}}}
"""
OF_SHOP = f"""{HEAD}  inbound:
    faults:
      - {{name: down, unavailable: true, from: {{apps: [other]}}, times: 100}}
"""
FLAG = "--enable-fault-injection"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """On each engine: web injects faults into its calls, shop into those of other."""
    engine = ("--engine", str(request.param))
    files = tmp_path_factory.mktemp("faults")
    async with Mesh(files) as mesh:
        of_shop = mesh.write("shop/traffic.yaml", OF_SHOP)
        of_web = mesh.write("web/traffic.yaml", OF_WEB)
        log = ("--access-log", str(files / "web.log"))

        def flags(file: Path) -> tuple[str, ...]:
            return (*engine, FLAG, "--resources-path", str(file.parent))

        http_app, grpc_app = await asyncio.gather(mesh.http_app(), mesh.grpc_app())
        shop, echo, web, other = await asyncio.gather(
            mesh.sidecar("shop", app=http_app, flags=flags(of_shop)),
            mesh.sidecar("echo", app=grpc_app, flags=engine),
            mesh.sidecar("web", flags=(*flags(of_web), *log)),
            mesh.sidecar("other", flags=engine),
        )
        await asyncio.gather(shop.wait_app(), echo.wait_app())
        yield Scene(mesh, shop, echo, web, other, of_shop, of_web)


async def curl(url: str, *flags: str) -> tuple[int, str]:
    """What curl exits with and prints, with the answer's head."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--include", "--max-time", "60", *flags, url), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_caller_sees_the_fault_and_who_injected_it(scene: Scene) -> None:
    base = f"http://127.0.0.1:{scene.web.http_port}"
    code, answer = await curl(base + invoke("shop", "/orders/7"))
    assert (code, answer.splitlines()[0].split()[1]) == (0, "503")
    assert "postern-fault: broken" in answer
    code, answer = await curl(base + invoke("shop", "/orders/7/../../echo/1"), "--path-as-is")
    assert "postern-fault" not in answer  # it is /echo/1
    code, answer = await curl(base + invoke("shop", "/echo/1"), "--header", "X-Test: teapot")
    assert (answer.splitlines()[0].split()[1], "postern-fault: tagged" in answer) == ("418", True)
    code, answer = await curl(base + invoke("shop", "/echo/1"))
    assert (answer.splitlines()[0].split()[1], "postern-fault" in answer) == ("200", False)
    await eventually(
        lambda: scene.metric(scene.web, 'postern_faults_injected_total{fault="broken",kind="abort"} 1')
    )
    status: Any = await scene.web.status()
    (broken,) = [one for one in status["limits"] if one["name"] == "fault:peer:shop.default:broken"]
    assert broken["injected"] == {"abort": 1}

    async def logged() -> bool:
        text = (scene.mesh.files / "web.log").read_text(encoding="utf-8")
        calls = [json.loads(line) for line in text.splitlines()]
        ours = [call["fault"] for call in calls if call["path"] in ("/orders/7", "/echo/1")]
        return ours == ["broken", None, "tagged", None]

    await eventually(logged)


async def test_grpc_caller_gets_the_code_of_a_fault(scene: Scene) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scene.web.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoClient(channel, metadata=(("dapr-app-id", "echo"),)).unary(EchoRequest(message="hi"))
    pairs: Any = (*(caught.value.initial_metadata() or ()), *(caught.value.trailing_metadata() or ()))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(pairs)["postern-fault"] == "no-go"


async def test_callees_fault_is_for_the_callers_that_it_names(scene: Scene) -> None:
    url = invoke("shop", "/echo")
    code, answer = await curl(f"http://127.0.0.1:{scene.other.http_port}{url}")
    assert (code, answer.splitlines()[0].split()[1] >= "500") == (0, True)
    assert "postern-fault: down" in answer
    code, answer = await curl(f"http://127.0.0.1:{scene.web.http_port}{url}")
    assert (answer.splitlines()[0].split()[1], "postern-fault" in answer) == ("200", False)


async def test_without_the_flag_there_is_a_warning_and_no_fault(tmp_path: Path, shared: SharedSentry) -> None:
    async with Mesh(tmp_path, shared=shared) as mesh:
        file = mesh.write("web/traffic.yaml", OF_WEB)
        app = await mesh.http_app()
        _, web = await asyncio.gather(
            mesh.sidecar("shop", app=app), mesh.sidecar("web", flags=("--resources-path", str(file.parent)))
        )
        await web.process.line("faults.*no effect without --enable-fault-injection.*broken, tagged, cut")
        code, answer = await curl(f"http://127.0.0.1:{web.http_port}{invoke('shop', '/orders/7')}")
    assert (code, answer.splitlines()[0].split()[1], "postern-fault" in answer) == (0, "200", False)
