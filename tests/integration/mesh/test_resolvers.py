"""Sidecars that find each other by a component of `spec.nameResolution`."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.nameresolution.consul import CONSUL, Consul
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import DAPR_APP_ID, Mesh
from tests.support.processes import Processes

ANNOUNCED = r'msg="?serving'


def configuration(files: Path, component: str, settings: Mapping[str, object]) -> tuple[str, ...]:
    """The flags of a Configuration with this component."""
    spec = {"nameResolution": {"component": component, "configuration": settings}}
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Configuration",
        "metadata": {"name": "c"},
        "spec": spec,
    }
    path = files / f"{component}.yaml"
    path.write_text(json.dumps(document))
    return ("--config", str(path))


@pytest.mark.parametrize("engine", ENGINES)
async def test_apps_call_each_other_by_a_sqlite_file(
    mesh: Mesh, http_app: App, tmp_path: Path, engine: str
) -> None:
    settings = {"connectionString": str(tmp_path / "nr.db"), "updateInterval": "2s"}
    flags = ("--engine", engine, *configuration(tmp_path, "sqlite", settings))
    web = await mesh.sidecar("web", flags=flags)
    cart = await mesh.sidecar("cart", app=http_app, flags=flags)
    await cart.process.line(ANNOUNCED)
    other = await mesh.sidecar("cart", app=http_app, flags=(*flags, "--namespace", "shop"))
    await other.process.line(ANNOUNCED)
    for name, expected in (("cart", cart), ("cart.default", cart), ("cart.shop", other)):
        answer = await request(web.http_port, "GET", "/echo", headers=[(DAPR_APP_ID, name)])
        # The access policy of the development profile admits callers of our own namespace.
        assert answer.status == (403 if expected is other else 200), answer.body
    naming = (await web.status())["naming"]
    assert isinstance(naming, dict)
    assert [at.rpartition(":")[2] for at in naming["cart.default"]] == [str(cart.peer_port)]
    assert [at.rpartition(":")[2] for at in naming["cart.shop"]] == [str(other.peer_port)]
    await cart.end()
    gone = await request(web.http_port, "GET", "/echo", headers=[(DAPR_APP_ID, "cart")])
    assert gone.status == 500
    assert b"sqlite: 1 endpoint, 1 ignored because it is in namespace 'shop'" in gone.body


@pytest.mark.skipif(CONSUL.reason_missing() is not None, reason=str(CONSUL.reason_missing()))
@pytest.mark.parametrize("engine", ENGINES)
async def test_apps_call_each_other_by_consul(
    mesh: Mesh, http_app: App, processes: Processes, tmp_path: Path, engine: str
) -> None:
    consul = Consul(processes)
    await consul.start()
    settings = {
        "client": {"address": consul.address},
        "selfRegister": True,
        "meta": {"team": "${APP_ID}-${DAPR_HTTP_PORT}"},
    }
    flags = ("--engine", engine, *configuration(tmp_path, "consul", settings))
    web = await mesh.sidecar("web", flags=flags)
    await web.process.line("cannot announce over consul: app port: not set: pass --app-port")
    cart = await mesh.sidecar("cart", app=http_app, flags=flags)
    await cart.process.line(ANNOUNCED)
    answer = await request(web.http_port, "GET", "/echo", headers=[(DAPR_APP_ID, "cart")])
    assert answer.status == 200, answer.body
    (found,) = await consul.get("/v1/health/service/cart?passing")
    assert found["Service"]["Meta"]["team"] == f"cart-{cart.http_port}"
    assert found["Service"]["Meta"]["DAPR_PORT"] == str(cart.peer_port)
    await cart.end()
    gone = await request(web.http_port, "GET", "/echo", headers=[(DAPR_APP_ID, "cart")])
    assert gone.status == 500
    assert b"no instance of cart whose checks pass" in gone.body


async def test_component_that_is_told_nonsense_names_the_field(mesh: Mesh, tmp_path: Path) -> None:
    flags = configuration(tmp_path, "sqlite", {"connectionString": "x.db", "updateInterval": "1s"})
    args = mesh.arguments("web", flags=flags)
    refused = mesh.processes.start_python("proxy", *args, name="sidecar")
    await refused.line(r"configuration of 'sqlite': updateInterval: expected at least 1s more than timeout")
    assert await refused.ended() == 1
