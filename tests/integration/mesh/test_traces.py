"""Traces of real sidecars, on both engines: what is kept of calls that were not sampled, and that both halves are found."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nameresolution.host_registry import HostRegistry
from proxy.cli.traces import Listing, list_traces, spans_of
from telemetry.traces import TraceFilter
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Standing, eventually, invoke, standing
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.zipkin import ZipkinServer, launch, reason_missing

RARELY = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: rarely}
spec: {tracing: {samplingRate: "0", tail: {latency: 300ms}}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """`web` may not call `/secret` of `shop`; no call is sampled."""
    files: Path = tmp_path_factory.mktemp("traces")
    (files / "rarely.yaml").write_text(RARELY)
    (files / "rules.yaml").write_text(NO_SECRET_FOR_WEB)
    flags = ("--engine", request.param, "--config", str(files / "rarely.yaml"))
    async with standing(files, flags=flags, shop=("--config", str(files / "rules.yaml"))) as found:
        yield found


async def listed(mesh: Mesh, source: Any = "memory", **wanted: Any) -> Listing:
    """What `postern trace --list` would show."""
    return await list_traces(HostRegistry(mesh.root).entries(), TraceFilter(**wanted), 100, source)


async def trace_of(shop: Standing, method: str, target: str) -> str:
    """Make a call; its trace."""
    answer = await request(shop.web.http_port, method, target)
    return dict(answer.headers)["traceparent"].split("-")[1]


async def summary(shop: Standing, trace_id: str, **wanted: Any) -> dict[str, Any]:
    """The trace's line in the list."""
    (one,) = [one for one in (await listed(shop.mesh, **wanted)).traces if one["trace_id"] == trace_id]
    return dict(one)


async def test_call_that_went_as_usual_and_was_not_sampled_leaves_no_trace(shop: Standing) -> None:
    # On a busy machine one or the other takes as long as what is kept for that.
    usual = {await trace_of(shop, "GET", invoke("shop", "/status?code=404")) for _ in range(10)}
    assert usual - {one["trace_id"] for one in (await listed(shop.mesh)).traces}


async def test_failure_of_an_app_is_found_with_both_halves(shop: Standing) -> None:
    trace_id = await trace_of(shop, "GET", invoke("shop", "/status?code=503"))
    one = await summary(shop, trace_id, is_error=True, app="web")
    assert (one["spans"], one["errors"], one["sampled"], one["apps"]) == (2, 2, False, ["shop", "web"])
    root = one["root"]
    assert (root["src"], root["dst"], root["status"], root["parent_id"]) == ("web", "shop", "503", "")
    assert trace_id not in {one["trace_id"] for one in (await listed(shop.mesh, app="echo")).traces}


async def test_denied_call_is_found_with_the_rule_that_denied_it(shop: Standing) -> None:
    trace_id = await trace_of(shop, "GET", invoke("shop", "/secret"))
    assert (await summary(shop, trace_id, is_error=True))["spans"] == 2
    spans, _ = await spans_of(HostRegistry(shop.mesh.root).entries(), trace_id)
    told: list[Any] = [one["postern"] for one in spans]
    assert [one["made_by"] for one in told] == ["peer-proxy", "this-proxy"]
    assert "/secret" in told[1]["decision"]
    assert told[0]["tried"][0]["endpoint"].endswith(f":{shop.shop.peer_port}")
    assert {"resolve", "queue", "connect", "upstream_ttfb"} <= set(told[0]["timings_us"])


async def test_slow_call_is_found_and_quick_ones_are_not_among_slow_ones(shop: Standing) -> None:
    trace_id = await trace_of(shop, "GET", invoke("shop", "/slow?s=0.4"))
    one = await summary(shop, trace_id, slower_us=300_000)
    assert (one["spans"], one["errors"]) == (2, 0)
    assert one["duration_us"] >= 300_000
    failed = await trace_of(shop, "GET", invoke("shop", "/status?code=500"))
    took_us = (await summary(shop, failed))["duration_us"]
    assert failed not in {one["trace_id"] for one in (await listed(shop.mesh, slower_us=took_us + 1)).traces}


async def test_call_to_an_app_that_is_not_there_is_found(shop: Standing) -> None:
    trace_id = await trace_of(shop, "GET", invoke("nobody", "/x"))
    one = await summary(shop, trace_id, is_error=True, app="nobody")
    assert (one["spans"], one["errors"]) == (1, 1)


@pytest.mark.parametrize("engine", ENGINES)
async def test_half_of_the_callee_outlives_the_caller(engine: str, mesh: Mesh, http_app: App) -> None:
    config = mesh.write("rarely.yaml", RARELY)
    flags = ("--engine", engine, "--config", str(config))
    web = await mesh.sidecar("web", flags=flags)
    await mesh.sidecar("shop", app=http_app, flags=flags)
    answer = await request(web.http_port, "GET", invoke("shop", "/status?code=500"))
    trace_id = dict(answer.headers)["traceparent"].split("-")[1]
    (one,) = (await listed(mesh)).traces
    assert (one["trace_id"], one["spans"]) == (trace_id, 2)
    assert await web.end() == 0
    (one,) = (await listed(mesh, is_error=True)).traces
    assert (one["trace_id"], one["spans"], one["root"]["src"]) == (trace_id, 1, "web")
    assert one["root"]["parent_id"]


@pytest.fixture(scope="module")
def zipkin() -> Any:
    """A running Zipkin; tests are skipped, saying why, where there is none."""
    missing = reason_missing()
    if missing is not None:
        pytest.skip(f"Zipkin: {missing}")
    with launch() as server:
        yield server


@pytest.mark.timeout(func_only=True)  # the first use may download the server: that has its own deadline
async def test_traces_of_sidecars_that_have_ended_are_listed_from_zipkin(
    zipkin: ZipkinServer, mesh: Mesh, http_app: App
) -> None:
    sampled = RARELY.replace('"0"', '"1"').replace(
        "tail:", f"zipkin: {{endpointAddress: {zipkin.endpoint}}}, tail:"
    )
    flags = ("--config", str(mesh.write("sampled.yaml", sampled)))
    web = await mesh.sidecar("web", flags=flags)
    await mesh.sidecar("shop", app=http_app, flags=flags)
    answer = await request(web.http_port, "GET", invoke("shop", "/status?code=500"))
    trace_id = dict(answer.headers)["traceparent"].split("-")[1]
    assert await web.end() == 0  # sends what it has
    assert (await listed(mesh)).traces[0]["spans"] == 1

    async def is_whole() -> bool:
        return {
            one["trace_id"]: one["spans"] for one in (await listed(mesh, "any", is_error=True)).traces
        } == {trace_id: 2}

    await eventually(is_whole, within_s=60.0)
    listing = await listed(mesh, "zipkin", app="web")
    assert [one["trace_id"] for one in listing.traces] == [trace_id]
    assert [one.partition(" at ")[0] for one in listing.asked] == ["Zipkin"]
    spans, _ = await spans_of(HostRegistry(mesh.root).entries(), trace_id)
    assert {(one["kind"], "postern" in one) for one in spans} == {("CLIENT", False), ("SERVER", True)}
