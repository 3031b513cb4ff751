"""A call that the callee's access policy denies, under a Resiliency that would retry it and open its breaker, were it a failure."""

import json
from pathlib import Path

import pytest

from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, eventually, invoke
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, SharedSentry

CALLS = 3
RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    retries: {three: {policy: constant, duration: 20ms, maxRetries: 3}}
    circuitBreakers: {soon: {trip: consecutiveFailures >= 1, timeout: 1h}}
  targets: {apps: {shop: {retry: three, circuitBreaker: soon}}}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_denial_is_neither_retried_nor_a_failure_to_the_breaker(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    async with Mesh(tmp_path, shared=shared) as mesh:
        rules, log = mesh.write("rules.yaml", NO_SECRET_FOR_WEB), tmp_path / "calls.jsonl"
        resources = mesh.write("resources/resiliency.yaml", RESILIENCY).parent
        flags = ("--engine", engine)
        await mesh.sidecar("shop", app=await mesh.http_app("shop"), flags=(*flags, "--config", str(rules)))
        web = await mesh.sidecar(
            "web", flags=(*flags, "--resources-path", str(resources), "--access-log", str(log))
        )
        for _ in range(CALLS):
            answer = await request(web.http_port, "GET", invoke("shop", "/secret"))
            assert (answer.status, answer.get("postern-error")) == (403, "denied")

        async def is_told() -> bool:
            return log.exists() and len(log.read_text().splitlines()) >= CALLS

        await eventually(is_told)
        told = [json.loads(line) for line in log.read_text().splitlines()]
        (breaker,) = json.loads((await web.admin("/status")).body)["circuitBreakers"]
        explained = json.loads((await web.admin("/explain?method=GET&url=" + invoke("shop", "/secret"))).body)
    assert [(line["attempts"], line["not_retried"]) for line in told] == [(1, "denied")] * CALLS
    assert (breaker["state"], breaker["counters"]["totalFailures"]) == ("closed", 0)
    assert {"why": "denied", "what": "a call that an access policy of the callee denies"} in explained[
        "notRetried"
    ]
