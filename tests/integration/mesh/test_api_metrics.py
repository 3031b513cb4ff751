"""`dapr_http_*` and `dapr_grpc_*` of a sidecar under the name daprd, as Dapr's own suite looks for them, on both engines."""

import re

import grpc.aio
import pytest

from sentry.join import mint
from sentry.spiffe import SpiffeId
from tests.integration.mesh.standing import eventually, invoke
from tests.support.apps import App
from tests.support.dapr_client import DaprClient
from tests.support.daprd import SENTRY_ID
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar

HIGH = ""
LOW = "increasedCardinality: false"
MATCHING = """increasedCardinality: false
      pathMatching:
      - /v1.0/invoke/myapp/method/orders/1234
      - /v1.0/invoke/myapp/method/orders/{orderID}
      - /items/{id}"""
NO_VERBS = "excludeVerbs: true"


async def start(mesh: Mesh, engine: str, app: App, http: str) -> Sidecar:
    """The app's sidecar with these settings of spec.metrics.http."""
    text = f"kind: Configuration\nspec:\n  metrics:\n    enabled: true\n    http:\n      {http}\n"
    config = mesh.write("metrics.yaml", text if http else text.replace("    http:\n      \n", ""))
    flags = ("--profile", "daprd", "--engine", engine, "--config", str(config))
    return await mesh.sidecar("myapp", app=app, flags=flags)


async def metrics_with(sidecar: Sidecar, *awaited: str) -> str:
    """The metrics, once they have all these lines."""
    text = ""

    async def are_there() -> bool:
        nonlocal text
        text = (await sidecar.admin("/metrics")).body.decode()
        return all(f"\ndapr_{line}\n" in text for line in awaited)

    try:
        await eventually(are_there)
    except TimeoutError:
        pytest.fail(
            "\n".join(line for line in text.splitlines() if line.startswith(("dapr_http", "dapr_grpc")))
        )
    return text


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine."""
    return str(request.param)


def labels(path: str, status: int = 200, method: str = "GET") -> str:
    """Of an HTTP series of myapp."""
    return f'{{app_id="myapp",method="{method}",path="{path}",status="{status}"}}'


async def test_paths_are_labels_and_the_api_itself_is_counted(engine: str, mesh: Mesh, http_app: App) -> None:
    sidecar = await start(mesh, engine, http_app, HIGH)
    port = sidecar.http_port
    hi = "/v1.0/invoke/myapp/method/hi"
    await sidecar.wait_app()  # the last answer of several, and the only 204
    for target in (hi, "/v1.0/metadata", "/v1.0/nowhere"):
        await request(port, "GET", target)
    await metrics_with(
        sidecar,
        f"http_server_request_count{labels(hi)} 1.0",
        f"http_server_response_count{labels(hi)} 1.0",
        f"http_server_response_count{labels('/v1.0/healthz', 204)} 1.0",
        f"http_server_request_count{labels('/v1.0/metadata')} 1.0",
        f"http_server_request_count{labels('/v1.0/nowhere', 404)} 1.0",
        f"http_client_completed_count{labels('/dapr/config')} 1.0",
    )


async def test_low_cardinality_has_no_paths_but_those_that_are_fixed(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    sidecar = await start(mesh, engine, http_app, LOW)
    await request(sidecar.http_port, "GET", "/v1.0/invoke/myapp/method/hi")
    text = await metrics_with(
        sidecar,
        f"http_server_request_count{labels('')} 1.0",
        f"http_client_completed_count{labels('/dapr/config')} 1.0",
    )
    assert "dapr_http_server_response_count{" not in text
    assert "/v1.0/" not in text


async def test_patterns_match_the_whole_path_or_the_apps(engine: str, mesh: Mesh, http_app: App) -> None:
    sidecar = await start(mesh, engine, http_app, MATCHING)
    for path in ("/orders/1111", "/orders/1234", "/items/1", "/items/2", "/other"):
        await request(sidecar.http_port, "GET", f"/v1.0/invoke/myapp/method{path}")
    await request(sidecar.http_port, "GET", "//v1.0/invoke/myapp/method/orders/9999")
    await metrics_with(
        sidecar,
        f"http_server_request_count{labels('/v1.0/invoke/myapp/method/orders/{orderID}')} 2.0",
        f"http_server_request_count{labels('/v1.0/invoke/myapp/method/orders/1234')} 1.0",
        f"http_server_request_count{labels('/v1.0/invoke/{app_id}/method/items/{id}')} 2.0",
        f"http_server_request_count{labels('')} 1.0",
    )


async def test_verbs_can_be_left_out(engine: str, mesh: Mesh, http_app: App) -> None:
    sidecar = await start(mesh, engine, http_app, NO_VERBS)
    await request(sidecar.http_port, "GET", "/v1.0/invoke/myapp/method/hi")
    await metrics_with(
        sidecar,
        f"http_server_request_count{labels('/v1.0/invoke/myapp/method/hi', method='')} 1.0",
        f"http_client_completed_count{labels('/dapr/config', method='')} 1.0",
    )


async def test_invoke_service_is_a_call_of_the_grpc_api_and_none_of_the_http_api(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    sidecar = await start(mesh, engine, http_app, HIGH)
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        client = DaprClient(channel)
        assert (await client.invoke("myapp", "hi", verb="GET")).code is grpc.StatusCode.OK
        await client.get_metadata()
    dapr = "/dapr.proto.runtime.v1.Dapr/"
    text = await metrics_with(
        sidecar,
        *(
            f'grpc_io_server_completed_rpcs{{app_id="myapp",grpc_server_method="{dapr}{method}",grpc_server_status="OK"}} 1.0'
            for method in ("InvokeService", "GetMetadata")
        ),
        *(
            f'grpc_io_server_{way}_bytes_per_rpc_count{{app_id="myapp",grpc_server_method="{dapr}InvokeService"}} 1.0'
            for way in ("received", "sent")
        ),
        'runtime_service_invocation_req_sent_total{app_id="myapp",dst_app_id="myapp",type="unary"} 1.0',
        f"http_client_completed_count{labels('/hi')} 1.0",
    )
    assert not re.search(r'^dapr_http_server_.*path="/hi"', text, re.MULTILINE)
    assert invoke("myapp", "/hi") not in text


async def test_call_to_the_own_app_is_counted_as_the_apps_too(engine: str, mesh: Mesh, http_app: App) -> None:
    sidecar = await start(mesh, engine, http_app, HIGH)
    for _ in range(3):
        assert (await request(sidecar.http_port, "GET", invoke("myapp", "/echo"))).status == 200
    sent = 'http_client_sent_bytes_count{app_id="myapp",method="GET",path="/echo",status=""}'
    await metrics_with(
        sidecar,
        f"http_client_completed_count{labels('/echo')} 3.0",
        f"http_client_roundtrip_latency_count{labels('/echo')} 3.0",
        f"{sent} 3.0",
        f"http_server_request_count{labels(invoke('myapp', '/echo'))} 3.0",
    )


async def test_calls_of_the_app_s_callback_and_of_sentry_are_the_sidecar_s_own(
    engine: str, mesh: Mesh
) -> None:
    await mesh.start_sentry()
    anchors = (mesh.root / "sentry" / "authority" / "ca.crt").read_text()
    token = mesh.write("token", mint(mesh.root, SpiffeId("public", "default", "myapp"), SENTRY_ID))
    app = await mesh.grpc_app("myapp", "--callback")
    where = ("--enable-mtls", "--sentry-address", f"unix:{mesh.root}/sentry/sentry.sock")
    sidecar = await mesh.sidecar(
        "myapp",
        app=app,
        flags=("--profile", "daprd", "--engine", engine, *where),
        env={"DAPR_TRUST_ANCHORS": anchors, "DAPR_SENTRY_TOKEN_FILE": str(token)},
    )
    await sidecar.wait_app()
    assert (await request(sidecar.http_port, "POST", invoke("myapp", "/hi"), body=b"12345")).status == 200
    called = 'app_id="myapp",grpc_client_method="/dapr.proto.runtime.v1.AppCallback/OnInvoke"'
    signed = 'app_id="myapp",grpc_client_method="/dapr.proto.sentry.v1.CA/SignCertificate"'
    text = await metrics_with(
        sidecar,
        *(f'grpc_io_client_completed_rpcs{{{one},grpc_client_status="OK"}} 1.0' for one in (called, signed)),
        *(
            f'grpc_io_client_roundtrip_latency_count{{{one},grpc_client_status="OK"}} 1.0'
            for one in (called, signed)
        ),
        *(
            f"grpc_io_client_{way}_bytes_per_rpc_count{{{one}}} 1.0"
            for way in ("sent", "received")
            for one in (called, signed)
        ),
    )
    sizes = re.findall(r"^dapr_grpc_io_client_\w+_bytes_per_rpc_sum.* (\S+)$", text, re.MULTILINE)
    assert len(sizes) == 4
    assert all(float(size) > 5 for size in sizes)


async def test_sidecar_under_its_own_name_counts_no_calls_of_its_own(engine: str, mesh: Mesh) -> None:
    app = await mesh.grpc_app("myapp", "--callback")
    sidecar = await mesh.sidecar("myapp", app=app, flags=("--engine", engine))
    await sidecar.wait_app()
    assert (await request(sidecar.http_port, "POST", invoke("myapp", "/hi"))).status == 200
    assert b"grpc_io_client" not in (await sidecar.admin("/metrics")).body
