"""Dapr's SDKs for Go, Java and JavaScript with a sidecar: as clients, and as apps. What they call and how: dapr/README.md."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from tests.stock.programs import BUILT, GO_INSTALL, JAVA_INSTALL, JVM, NODE_INSTALL, NODE_TOOLS, Program
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port

_BUILT: Final = BUILT / "dapr"
_JAVA: Final = f"{_BUILT}/java/classes:{_BUILT}/java/lib/*"
_WITHIN_S: Final = 60.0
SECRET: Final = {"DAPR_API_TOKEN": "open-sesame"}
JSON_BODY: Final = {"body": '{"n":1}', "type": "application/json"}
NOTHING: Final = {"body": "", "type": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of a client to call. target: what its HTTP app is asked for. get, delete: what it sends with these verbs.

    rest: what else it says.

    missing, nobody, state: code and text of its error where the app says 404, nobody has the name, postern has no such block.
    """

    target: str
    get: dict[str, str]
    delete: dict[str, str] = field(default_factory=lambda: JSON_BODY)
    missing: tuple[object, str] | None
    nobody: tuple[object, str]
    state: tuple[object, str]
    rest: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """clients: the ways of its client; servers: those of its apps, which are given to `serve`; type: of a greeting."""

    program: Program
    clients: dict[str, Way]
    servers: tuple[str, ...]
    type: str = "text/plain"


_NO_SERVICE: Final = "failed to invoke, id: nobody, err: couldn't find service: nobody"
_NO_STATE: Final = "has no such building block: a state store"
_UNIMPLEMENTED: Final = (12, _NO_STATE)
_ON_GRPC: Final = Way(
    target="/echo/a%20b",
    get={"body": "{}", "type": "application/json"},
    missing=None,
    nobody=(13, _NO_SERVICE),
    state=_UNIMPLEMENTED,
    rest={},
)
SDKS: Final = {
    "go": Sdk(
        program=Program(
            command=(str(_BUILT / "go" / "sdk"),),
            built=_BUILT / "go" / "sdk",
            tools=("go",),
            install=GO_INSTALL,
        ),
        clients={
            "grpc": Way(
                target="/echo/a%20b?x=1&y=a%20b",
                get=NOTHING,
                missing=(5, "Not Found"),
                nobody=(13, _NO_SERVICE),
                state=_UNIMPLEMENTED,
                rest={"proxied": "hello", "metadata": {"id": "web", "owner": "grpc"}},
            )
        },
        servers=("http", "grpc"),
    ),
    "java": Sdk(
        program=Program(
            command=(*JVM, "-cp", _JAVA, "Sdk"),
            built=_BUILT / "java" / "built",
            tools=("java", "mvn"),
            install=JAVA_INSTALL,
        ),
        clients={
            "http": Way(
                target="/echo/a%20b?x=1&y=a+b",
                get={"body": "", "type": "application/json"},
                delete={"body": "", "type": "application/json"},
                missing=("UNKNOWN", "HTTP status code: 404"),
                nobody=("ERR_DIRECT_INVOKE", _NO_SERVICE),
                state=("UNIMPLEMENTED", _NO_STATE),
                rest={"proxied": "hello", "metadata": {"id": "web"}},
            )
        },
        servers=("grpc",),
        type="application/json",
    ),
    "node": Sdk(
        program=Program(
            command=("node", str(_BUILT / "node" / "sdk.js")),
            built=_BUILT / "node" / "built",
            tools=NODE_TOOLS,
            install=NODE_INSTALL,
        ),
        clients={
            "http": Way(
                target="/echo/a%20b?x=1&y=a%20b",
                get=NOTHING,
                missing=(0, '"error_msg":"status 404","status":404'),
                nobody=(0, "ERR_DIRECT_INVOKE"),
                state=(0, "ERR_STATE_STORE_NOT_CONFIGURED"),
                rest={"healthy": True, "metadata": {"id": "web", "owner": "http"}},
            ),
            "grpc": replace(_ON_GRPC, rest={"healthy": True, "metadata": {"id": "web", "owner": "grpc"}}),
            "grpc-js": replace(
                _ON_GRPC,
                rest={"healthy": True, "metadata": {"id": "web", "owner": "grpc-js"}, "proxied": "hello"},
            ),
        },
        servers=("http", "grpc", "grpc-js"),
    ),
}


UNPROBED: Final = {"grpc-js"}  # those releases of the SDK serve no health check over gRPC


def built(name: str) -> Sdk:
    """An SDK's program; the test is skipped where it can't be run."""
    sdk = SDKS[name]
    if missing := sdk.program.reason_missing():
        pytest.skip(missing)
    return sdk


def ports(sidecar: Sidecar) -> dict[str, str]:
    """Where a program finds its sidecar."""
    return {"DAPR_HTTP_PORT": str(sidecar.http_port), "DAPR_GRPC_PORT": str(sidecar.grpc_port)}


async def told(mesh: Mesh, sdk: Sdk, *arguments: str, env: dict[str, str]) -> dict[str, Any]:
    """What a program says came of it."""
    process = mesh.processes.start([*sdk.program.command, *arguments], name="Dapr's SDK", env=env)
    found: dict[str, Any] = json.loads((await process.line(r"^result (.*)$", timeout_s=_WITHIN_S))[1])
    return found


@pytest.mark.parametrize("token", [{}, SECRET], ids=["open", "token"])
@pytest.mark.parametrize("name", SDKS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_client_calls_apps_and_its_sidecar(
    mesh: Mesh, engine: str, name: str, token: dict[str, str]
) -> None:
    sdk = built(name)
    flags = ("--engine", engine)
    await mesh.sidecar("shop", app=await mesh.http_app("shop"), flags=flags)
    await mesh.sidecar("echo", app=await mesh.grpc_app("echo"), flags=flags)
    web = await mesh.sidecar("web", flags=flags, env=token)
    found = await told(mesh, sdk, "calls", "shop", "echo", env=ports(web) | token)
    assert found.keys() == sdk.clients.keys()
    for key, way in sdk.clients.items():
        came = found[key]
        sent = {"GET": way.get, "DELETE": way.delete}
        assert came.pop("called") == {
            verb: {"method": verb, "target": way.target, **sent.get(verb, JSON_BODY)}
            for verb in ("GET", "POST", "PUT", "PATCH", "DELETE")
        }
        for failure in ("missing", "nobody", "state"):
            expected = getattr(way, failure)
            if expected is not None:
                error = came.pop(failure)
                assert (error["code"], expected[1] in error["text"]) == (expected[0], True), error
        assert came == way.rest
    assert await web.process.ended() == 0  # it was shut down


@pytest.mark.parametrize(
    ("name", "server"), [(name, server) for name, sdk in SDKS.items() for server in sdk.servers]
)
@pytest.mark.parametrize("engine", ENGINES)
async def test_app_is_probed_and_called_by_its_own_sdk_and_by_http(
    mesh: Mesh, engine: str, name: str, server: str
) -> None:
    sdk = built(name)
    flags = ("--engine", engine)
    port, tokens = free_port(), SECRET | {"APP_API_TOKEN": "from-the-sidecar"}
    protocol = "http" if server == "http" else "grpc"
    probes = () if server in UNPROBED else ("--enable-app-health-check", "--app-health-probe-interval", "1")
    greeter = await mesh.sidecar(
        "greeter", app_port=port, app_protocol=protocol, flags=(*flags, *probes), env=tokens
    )
    command = [*sdk.program.command, "serve", server, str(port)]
    app = mesh.processes.start(command, name="app by Dapr's SDK", env=ports(greeter) | tokens)
    await app.line(r"^serving ", timeout_s=_WITHIN_S)
    web = await mesh.sidecar("web", flags=flags)
    found = await told(mesh, sdk, "greets", "greeter", env=ports(web))
    assert found == {key: {"body": "hello", "type": sdk.type} for key in sdk.clients}
    answer = await request(
        *(web.http_port, "POST", "/v1.0/invoke/greeter/method/greet"),
        headers=[("content-type", "text/plain")],
        body=b"hello",
    )
    assert (answer.status, json.loads(answer.body)) == (200, {"body": "hello", "type": "text/plain"})
