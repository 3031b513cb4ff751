"""Dapr's SDK for Python with a sidecar: calls by gRPC and HTTP, metadata, shutdown; and its messages beside ours."""

import json
from typing import Any, Final

import pytest
from google.protobuf.descriptor import Descriptor

from proxy.api.dapr import common_pb2, runtime_pb2
from tests.stock.programs import BUILT, Program
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.mesh import Mesh
from tests.support.processes import REPOSITORY, Processes

_SCRIPT: Final = REPOSITORY / "tests" / "stock" / "dapr" / "python" / "dapr_sdk.py"
_BUILT: Final = BUILT / "dapr" / "python"
SDK: Final = Program(command=(str(_BUILT / "bin" / "python"), str(_SCRIPT)), built=_BUILT / "built")
pytestmark = pytest.mark.skipif(SDK.reason_missing() is not None, reason=str(SDK.reason_missing()))


async def told(processes: Processes, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What the program says came of it."""
    process = processes.start([*SDK.command, *arguments], name="Dapr's SDK", env=env)
    found: dict[str, Any] = json.loads((await process.line(r"^result (.*)$", timeout_s=40.0))[1])
    return found


@pytest.mark.parametrize("engine", ENGINES)
async def test_sdk_calls_an_app_and_its_sidecar(mesh: Mesh, http_app: App, engine: str) -> None:
    flags = ("--engine", engine)
    await mesh.sidecar("shop", app=http_app, flags=flags)
    web = await mesh.sidecar("web", flags=flags)
    env = {"DAPR_HTTP_PORT": str(web.http_port), "DAPR_GRPC_PORT": str(web.grpc_port)}
    found = await told(mesh.processes, "calls", "shop", env=env)
    echoed = {"method": "PUT", "body": "hello", "content_type": "application/json", "sent": "text/plain"}
    assert {**found["grpc"], "target": ""} == {**found["http"], "target": ""} == {**echoed, "target": ""}
    assert found["grpc"]["target"].replace("%20", "+") == found["http"]["target"] == "/echo?x=1&y=a+b"
    assert found["missing"] == {
        "code": "NOT_FOUND",
        "text": "Not Found",
        "info": {
            "reason": "Not Found",
            "domain": "dapr.io",
            "http.code": "404",
            "http.error_message": "status 404",
        },
    }
    assert (found["state"]["code"], "state store" in found["state"]["text"]) == ("UNIMPLEMENTED", True)
    assert found["metadata"] == {"id": "web", "owner": "blue"}
    assert await web.process.ended() == 0  # it was shut down


@pytest.mark.parametrize("engine", ENGINES)
async def test_app_by_the_sdk_is_called_by_its_callback(mesh: Mesh, engine: str) -> None:
    app = mesh.processes.start([*SDK.command, "serve"], name="app by Dapr's SDK")
    port = int((await app.line(r"^serving (\d+)$", timeout_s=30.0))[1])
    flags = ("--engine", engine)
    await mesh.sidecar("greeter", app_port=port, app_protocol="grpc", flags=flags)
    web = await mesh.sidecar("web", flags=flags)
    env = {"DAPR_HTTP_PORT": str(web.http_port), "DAPR_GRPC_PORT": str(web.grpc_port)}
    found = await told(mesh.processes, "callback", "greeter", env=env)
    said = {"body": "hello", "content_type": "text/plain", "caller": "web", "x-app": "sdk"}
    assert found["grpc"] == found["http"] == said
    assert found["missing"]["code"] == "UNIMPLEMENTED"
    assert "AppCallback/OnInvoke" in found["missing"]["text"]


def fields_of(message: Descriptor) -> dict[str, dict[str, list[int]]]:
    """Number, type and label of our fields, as the program tells those of the SDK's."""
    made = {message.full_name: {f.name: [f.number, f.type, int(f.is_repeated)] for f in message.fields}}
    for enum in message.enum_types:
        made[enum.full_name] = {value.name: [value.number] for value in enum.values}
    for nested in message.nested_types:
        made |= fields_of(nested)
    return made


async def test_messages_are_those_of_the_sdk(processes: Processes) -> None:
    theirs = await told(processes, "fields")
    for module in (common_pb2, runtime_pb2):
        for message in module.DESCRIPTOR.message_types_by_name.values():
            for name, fields in fields_of(message).items():
                assert fields.items() <= theirs[name].items(), name
