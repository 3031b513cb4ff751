"""The files that an example's reader copies: they load, and say what the example needs them to say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.boutique.mesh import RUN_FILE, configuration_with_zipkin, run_file_in, runtime_root
from examples.boutique.trace_check import CHECKOUT_CALLS
from policies.reading import schema
from policies.reading.compile_access import AccessContext, compile_access
from policies.reading.documents import read_documents, validate
from policies.reading.findings import Findings
from policies.rules.access import AccessRules, Operation
from policies.rules.caller import Caller

BOUTIQUE = RUN_FILE.parent
QUICKSTART = BOUTIQUE.parent / "quickstart"
HTTP_APPS = frozenset({"frontend", "reviews"})


def compile_rules(path: Path, app_id: str, protocol: str) -> AccessRules:
    (document,) = read_documents(path, {})
    findings = Findings()
    context = AccessContext(
        own_app_id=app_id,
        own_namespace="default",
        own_trust_domain="public",
        app_protocol=protocol,
        profile="dev",
        mtls=True,
    )
    rules = compile_access([(document, validate(document, schema.Configuration))], context, findings)
    assert findings.faults == []
    assert findings.warnings == []
    return rules


def is_allowed(path: Path, caller: str, callee: str, verb: str, target: str) -> bool:
    protocol = "http" if callee in HTTP_APPS or path.parent == QUICKSTART else "grpc"
    rules = compile_rules(path, callee, protocol)
    who = Caller(trust_domain="public", namespace="default", app_id=caller)
    operation = Operation(protocol="grpc" if protocol == "grpc" else "http", verb=verb, path=target)
    return rules.evaluate(who, operation).allowed


def target_of(callee: str) -> tuple[str, str]:
    methods: Mapping[str, str] = {
        "cart": "Get",
        "catalog": "Get",
        "currency": "Convert",
        "shipping": "Quote",
        "payment": "Charge",
        "checkout": "PlaceOrder",
        "recommendation": "List",
    }
    if callee == "reviews":
        return "POST", "/purchases"
    return "POST", f"/shop.{callee.capitalize()}Service/{methods[callee]}"


@pytest.mark.parametrize(
    ("caller", "callee"), [*CHECKOUT_CALLS, ("frontend", "recommendation"), ("recommendation", "catalog")]
)
def test_boutique_policy_allows_the_calls_that_the_shop_makes(caller: str, callee: str) -> None:
    assert is_allowed(BOUTIQUE / "config.yaml", caller, callee, *target_of(callee))


@pytest.mark.parametrize(
    ("caller", "callee", "verb", "target"),
    [
        ("frontend", "payment", "POST", "/shop.PaymentService/Charge"),
        ("frontend", "shipping", "POST", "/shop.ShippingService/Ship"),
        ("frontend", "reviews", "POST", "/purchases"),
        ("cart", "payment", "POST", "/shop.PaymentService/Charge"),
        ("shipping", "catalog", "POST", "/shop.CatalogService/List"),
        ("stranger", "catalog", "POST", "/shop.CatalogService/List"),
        ("checkout", "frontend", "GET", "/"),
    ],
)
def test_boutique_policy_refuses_other_calls(caller: str, callee: str, verb: str, target: str) -> None:
    assert not is_allowed(BOUTIQUE / "config.yaml", caller, callee, verb, target)


def test_boutique_policy_lets_the_front_end_read_reviews_and_quotes() -> None:
    config = BOUTIQUE / "config.yaml"
    assert is_allowed(config, "frontend", "reviews", "GET", "/products/mug/reviews")
    assert is_allowed(config, "frontend", "shipping", "POST", "/shop.ShippingService/Quote")


def test_boutique_resiliency_names_only_policies_that_it_has() -> None:
    path = BOUTIQUE / "resources" / "resiliency.yaml"
    (document,) = read_documents(path, {})
    spec = validate(document, schema.Resiliency).spec
    for target in spec.targets.apps.values():
        assert target.timeout in spec.policies.timeouts
        assert target.retry in spec.policies.retries


def test_boutique_run_file_starts_every_service_with_its_own_proxy_as_address() -> None:
    run = yaml.safe_load(RUN_FILE.read_text(encoding="utf-8"))
    apps = {app["appID"]: app for app in run["apps"]}
    assert len(apps) == 9
    for app_id, app in apps.items():
        assert app["command"] == ["python", "-m", f"examples.boutique.services.{app_id}"]
        assert (BOUTIQUE / "services" / f"{app_id}.py").exists()
        assert_addresses_are_its_own(app)


def assert_addresses_are_its_own(app: Mapping[str, Any]) -> None:
    for name, address in app.get("env", {}).items():
        assert name.endswith("_SERVICE_ADDR")
        assert address == "localhost:${DAPR_GRPC_PORT}"
    asks_reviews = app["appID"] in {"frontend", "checkout"}
    assert app.get("upstreams", []) == (["reviews"] if asks_reviews else [])


def test_copy_of_the_run_file_keeps_all_but_the_places(tmp_path: Path) -> None:
    configuration = configuration_with_zipkin(tmp_path, "http://127.0.0.1:1/api/v2/spans")
    written = yaml.safe_load(run_file_in(tmp_path, configuration).read_text())
    original = yaml.safe_load(RUN_FILE.read_text(encoding="utf-8"))
    assert [app["command"] for app in written["apps"]] == [app["command"] for app in original["apps"]]
    assert written["common"]["routes"] == original["common"]["routes"]
    config = yaml.safe_load(Path(written["common"]["configFilePath"]).read_text())
    assert config["spec"]["tracing"] == {
        "samplingRate": "1",
        "zipkin": {"endpointAddress": "http://127.0.0.1:1/api/v2/spans"},
    }
    assert Path(written["common"]["resourcesPaths"][0]).is_dir()
    assert all(Path(app["appDirPath"]).is_dir() for app in written["apps"])


def test_runtime_root_is_short_enough_for_sockets_and_private(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)
    root = runtime_root(deep)
    assert len(str(root)) < 80
    assert root.stat().st_mode & 0o777 == 0o700
    root.rmdir()


@pytest.mark.parametrize(
    ("caller", "verb", "target", "allowed"),
    [
        ("caller", "GET", "/greet/Ada", True),
        ("caller", "GET", "/key", False),
        ("caller", "POST", "/greet/Ada", False),
        ("stranger", "GET", "/greet/Ada", False),
    ],
)
def test_quickstart_policy_allows_greetings_alone(caller: str, verb: str, target: str, allowed: bool) -> None:
    assert is_allowed(QUICKSTART / "policy.yaml", caller, "hello", verb, target) is allowed
