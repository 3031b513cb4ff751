"""`postern status -o json` and `-o wide`: all that a sidecar knows, by the keys that the reference names."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from proxy.reference.status_keys import KEYS, OPEN
from tests.integration.cli.conftest import Commands
from tests.support.http_client import request

RESILIENCY = """\
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    timeouts: {short: 2s}
    retries:
      often: {policy: constant, duration: 10ms, maxRetries: 1}
    circuitBreakers:
      guard: {trip: consecutiveFailures > 1, timeout: 1h}
  targets:
    apps:
      shelf: {timeout: short, retry: often, circuitBreaker: guard}
"""
TRAFFIC = """\
apiVersion: postern.dev/v1alpha1
kind: Traffic
metadata: {name: spread}
spec:
  targets:
    apps:
      shelf:
        balancing: {policy: round-robin}
        concurrency: {limit: 7}
        retryBudget: {maxTokens: 4, tokenRatio: 1}
  inbound:
    rates: [{name: all, requests: 5, per: 1s}]
    concurrency: {limit: adaptive}
"""


def keys_of(told: object, path: str = "") -> Iterator[str]:
    """Each key below, with lists as `[]`; those with others below are not told."""
    if isinstance(told, Mapping) and told and path not in OPEN:
        for key, inner in told.items():
            yield from keys_of(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(told, list) and told and isinstance(told[0], Mapping) and path not in OPEN:
        for inner in told:
            yield from keys_of(inner, f"{path}[]")
    else:
        yield path


def bases(keys: Iterable[str]) -> set[str]:
    """The keys, and lists that are empty and so have none below."""
    return {part for key in keys for part in (key, key[: key.rfind("[]") + 2])}


async def test_status_has_policies_per_target_and_what_they_decided(secured: Commands) -> None:
    mesh = secured.mesh
    resiliency = mesh.write("resources/r.yaml", RESILIENCY)
    traffic = mesh.write("resources/t.yaml", TRAFFIC)
    shelf = await mesh.sidecar("shelf", app=await mesh.http_app(), flags=("--profile=dev",))
    web = await mesh.sidecar("web", flags=(f"--resources-path={resiliency.parent}",))
    await shelf.wait_app()
    for _ in range(2):
        await request(web.http_port, "GET", "/v1.0/invoke/shelf/method/status?code=500")
    code, output = await secured.done("status", "web", "-o", "json")
    assert code == 0, output
    (told,) = json.loads(output)
    unknown = [key for key in keys_of(told) if not any(one in (key, f"{key}[]") for one in bases(KEYS))]
    assert not unknown
    assert re.fullmatch(r"[0-9a-f]+", told["identity"]["serial"])
    assert told["identity"]["spiffeId"] == "spiffe://public/ns/default/web"
    assert told["identity"]["issuer"]
    targets = {row["target"]: row for row in told["policies"]["targets"]}
    assert list(targets) == ["shelf", "*"]
    found = targets["shelf"]
    assert (found["timeoutS"], found["retry"]["maxRetries"], found["builtInRetry"]) == (2.0, 1, None)
    assert found["circuitBreaker"]["trip"] == "consecutiveFailures > 1"
    assert (found["balancing"]["policy"], found["concurrency"]["limit"]) == ("round-robin", 7)
    assert found["retryBudget"] == {"maxTokens": 4.0, "tokenRatio": 1.0}
    assert [(row["policy"], row["name"], row["resource"], row["at"]) for row in found["from"]] == [
        ("targets.apps", "shelf", "mesh", f"{resiliency}:12"),
        ("policies.timeouts", "short", "mesh", f"{resiliency}:5"),
        ("policies.retries", "often", "mesh", f"{resiliency}:7"),
        ("policies.circuitBreakers", "guard", "mesh", f"{resiliency}:9"),
        ("targets.apps", "shelf", "spread", f"{traffic}:7"),
    ]
    inbound = told["policies"]["inbound"]
    assert inbound["rates"][0]["requests"] == 5
    assert {row["policy"] for row in inbound["from"]} == {"inbound.rates", "inbound.concurrency"}
    assert (targets["*"]["builtInRetry"]["maxRetries"], targets["*"]["from"]) == (3, [])
    (breaker,) = told["circuitBreakers"]
    assert (breaker["policy"], breaker["state"]) == ("guard", "open")
    address = f"127.0.0.1:{shelf.peer_port}"  # strangers may announce others
    (endpoint,) = (row for row in told["endpoints"] if row["address"] == address)
    assert endpoint["target"] == "shelf.default"
    assert endpoint["score"] >= endpoint["rttMs"] > 0
    (budget,) = told["retryBudgets"]
    assert (budget["target"], budget["kind"], budget["full"]) == ("shelf.default", "throttle", 4.0)
    assert budget["left"] < 4.0
    assert {gate["name"] for gate in told["limits"]} >= {"rate:all", "inbound-concurrency"}

    code, output = await secured.done("status", "web", "-o", "wide")
    assert code == 0, output
    for text in (
        "CERTIFICATE",
        "often: 1 times",
        f"{resiliency}:9 (mesh)",
        "RETRY BUDGET",
        "ENDPOINT",
        "open",
    ):
        assert text in output


async def test_status_hides_secrets(commands: Commands) -> None:
    mesh = commands.mesh
    file = mesh.write(
        "resources/e.yaml",
        "kind: HTTPEndpoint\nmetadata: {name: bank}\nspec:\n  baseUrl: http://127.0.0.1:9\n"
        "  headers: [{name: authorization, value: hunter2}]\n",
    )
    await mesh.sidecar(
        "web",
        flags=("--insecure-plaintext", f"--resources-path={file.parent}"),
        env={"DAPR_API_TOKEN": "hunter2"},
    )
    code, output = await commands.done("status", "web", "-o", "json")
    assert code == 0, output
    assert "hunter2" not in output
    targets = {row["target"]: row["kind"] for row in json.loads(output)[0]["policies"]["targets"]}
    assert targets == {"bank": "httpEndpoint", "*": "others"}
