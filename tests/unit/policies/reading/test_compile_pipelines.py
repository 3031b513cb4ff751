"""Handlers and components: what is made of them, and what is wrong where."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from policies.errors import DocumentError
from policies.reading import schema
from policies.reading.compile_pipelines import _KINDS
from policies.reading.component_settings import Settings as Read
from policies.reading.documents import Document
from policies.reading.effects import MIDDLEWARE
from policies.reading.findings import Findings
from policies.reloading.loading import PolicySnapshot, load
from policies.rules.pipelines import (
    Bearer,
    ClientCredentials,
    LoadedComponent,
    Middleware,
    OAuth2,
    Opa,
    RateLimit,
    RouterAlias,
    RouterChecker,
    Uppercase,
)
from tests.unit.policies.writing import configuration, sources

Settings = dict[str, Any]


def handler(name: str, kind: str, **more: str) -> dict[str, str]:
    return {"name": name, "type": f"middleware.http.{kind}", **more}


def component(name: str, kind: str, settings: Settings | None = None, **more: Any) -> str:
    """A document; settings that are mappings under `as` are entries as they are."""
    items = [
        {"name": key, **value["as"]}
        if isinstance(value, dict) and "as" in value
        else {"name": key, "value": value}
        for key, value in (settings or {}).items()
    ]
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": f"middleware.http.{kind}", "version": "v1", "metadata": items},
        **more,
    }
    return json.dumps(document, indent=1)


def read(
    folder: Path,
    handlers: list[dict[str, str]],
    *components: str,
    side: str = "httpPipeline",
    **changes: Any,
) -> PolicySnapshot:
    resources = {f"c{number}.yaml": text for number, text in enumerate(components)}
    text = configuration({side: {"handlers": handlers}})
    return load(sources(folder, text, resources=resources, **changes))


def made(folder: Path, kind: str, settings: Settings, **changes: Any) -> Middleware:
    (one,) = read(folder, [handler("m", kind)], component("m", kind, settings), **changes).pipelines.http
    return one


def faults(folder: Path, kind: str, settings: Settings, **changes: Any) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        made(folder, kind, settings, **changes)
    return [str(fault) for fault in caught.value.faults]


def test_handlers_come_in_their_order_on_both_sides(tmp_path: Path) -> None:
    texts = (component("a", "ratelimit"), component("b", "routeralias", {"routes": {"/x": "/y"}}))
    handlers = [handler("b", "routeralias"), handler("a", "RateLimit", version="v1")]
    for side in ("httpPipeline", "appHttpPipeline"):
        found = read(tmp_path, handlers, *texts, side=side).pipelines
        mine, other = (found.http, found.app) if side == "httpPipeline" else (found.app, found.http)
        assert mine == (RouterAlias(name="b", routes=(("/x", "/y"),)), RateLimit(name="a", per_s=100.0))
        assert other == ()


def test_later_configuration_replaces_the_handlers_of_an_earlier_one(tmp_path: Path) -> None:
    texts = [
        configuration({"httpPipeline": {"handlers": [handler(name, "ratelimit")]}}) for name in ("gone", "a")
    ]
    found = load(sources(tmp_path, *texts, resources={"a.yaml": component("a", "ratelimit")}))
    assert [one.name for one in found.pipelines.http] == ["a"]


@pytest.mark.parametrize(
    ("settings", "per_s", "burst"),
    [
        ({}, 100.0, 100),
        ({"maxRequestsPerSecond": 10}, 10.0, 10),
        ({"MAXREQUESTSPERSECOND": "0.5"}, 0.5, 1),
        ({"maxRequestsPerSecond": "2.5"}, 2.5, 2),
    ],
)
def test_rate_limit_bursts_by_what_a_second_allows(
    tmp_path: Path, settings: Settings, per_s: float, burst: int
) -> None:
    one = made(tmp_path, "ratelimit", settings)
    assert isinstance(one, RateLimit)
    assert (one.per_s, one.burst) == (per_s, burst)


@pytest.mark.parametrize("text", ["0", "-1", "many", "nan", "inf"])
def test_rate_that_is_none_is_a_fault_where_it_stands(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, "ratelimit", {"maxRequestsPerSecond": text})
    assert "c0.yaml:13: spec.metadata[0].value: " in fault
    assert "not a number above 0" in fault


@pytest.mark.parametrize("routes", ['{"/a/{id}": "/b"}', "/a/{id}: /b", {"/a/{id}": "/b"}])
def test_routes_are_a_mapping_or_a_text_that_holds_one(tmp_path: Path, routes: object) -> None:
    assert made(tmp_path, "routeralias", {"routes": routes}) == RouterAlias(
        name="m", routes=(("/a/{id}", "/b"),)
    )


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ("[]", "is not a mapping"),
        ("{", "neither YAML nor JSON"),
        ("[" * 200_000, "is too deep"),
        ("{/a: [/b]}", "/a is not given a text"),
        ({}, "is not a mapping"),
        ({"a": "/b"}, "`a` is not a path"),
        ({"/a%2fb": "/b"}, "is not a path"),
        ({"/a/x{id}": "/b"}, "is not a path"),
        ({"/{x}/{x}": "/b"}, "is not a path"),
        ({"/a": "/b?c"}, "`/b?c` is not a path"),
        ({"/a": "b"}, "`b` is not a path"),
        ({"/a/{x}": "/b", "/a/{y}/": "/c"}, "are for the same paths"),
    ],
)
def test_routes_that_can_not_be_used_are_faults(tmp_path: Path, routes: object, problem: str) -> None:
    (fault,) = faults(tmp_path, "routeralias", {"routes": routes})
    assert problem in fault


def test_rule_is_a_pattern_of_re2(tmp_path: Path) -> None:
    pytest.importorskip("re2")
    assert made(tmp_path, "routerchecker", {"rule": "^/[a-z]+$"}) == RouterChecker(name="m", rule="^/[a-z]+$")
    for rule in ("(", "(?=a)", r"(a)\1"):
        (fault,) = faults(tmp_path, "routerchecker", {"rule": rule})
        assert f"`{rule}` is not a regular expression" in fault
    (fault,) = faults(tmp_path, "routerchecker", {})
    assert "spec.metadata: rule is missing" in fault


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "https://i.example/x", "audience": "a", "jwksURL": "https://i.example/k"},
        {"issuerURL": "https://i.example/x", "clientID": "a", "jwksURL": "https://i.example/k"},
    ],
)
def test_bearer_has_two_names_for_its_settings(tmp_path: Path, settings: Settings) -> None:
    assert made(tmp_path, "bearer", settings) == Bearer(
        name="m", issuer="https://i.example/x", audience="a", jwks_url="https://i.example/k"
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"audience": "a"}, "issuer is missing"),
        ({"issuer": "https://i"}, "audience is missing"),
        ({"issuer": "i.example", "audience": "a"}, "`i.example` is not a URL"),
        ({"issuerURL": "ftp://i", "audience": "a"}, "spec.metadata[0].value: `ftp://i` is not a URL"),
        ({"issuer": "https://i:x", "audience": "a"}, "is not a URL"),
        ({"issuer": "https://i", "audience": "a", "jwksURL": "https:///k"}, "is not a URL"),
    ],
)
def test_bearer_that_could_not_check_is_a_fault(tmp_path: Path, settings: Settings, problem: str) -> None:
    (fault,) = faults(tmp_path, "bearer", settings)
    assert problem in fault


CREDENTIALS: Settings = {
    "clientId": "id",
    "clientSecret": {"as": {"envRef": "SECRET"}},
    "scopes": "a, b",
    "tokenURL": "https://t.example/token",
    "headerName": "Authorization",
}


def test_client_credentials_are_read(tmp_path: Path) -> None:
    more = {"endpointParamsQuery": "x=1&y=", "authStyle": 1}
    one = made(tmp_path, "oauth2clientcredentials", {**CREDENTIALS, **more}, env={"SECRET": "s"})
    assert isinstance(one, ClientCredentials)
    assert (one.client_id, one.client_secret, one.scopes) == ("id", "s", ("a", "b"))
    assert (one.header, one.auth_styles) == ("authorization", ("form",))
    assert one.endpoint_params == (("x", "1"), ("y", ""))
    assert "s" not in repr(one).removeprefix("ClientCredentials")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"headerName": "a b"}, "is not a header that can be set"),
        ({"headerName": "Host"}, "is not a header that can be set"),
        ({"authStyle": 3}, "`3` is unknown (expected 0, 1 or 2)"),
        ({"tokenURL": ""}, "tokenURL is missing"),
    ],
)
def test_client_credentials_that_can_not_be_used_are_faults(
    tmp_path: Path, changes: Settings, problem: str
) -> None:
    (fault,) = faults(tmp_path, "oauth2clientcredentials", {**CREDENTIALS, **changes}, env={"SECRET": "s"})
    assert problem in fault


def test_logins_are_read(tmp_path: Path) -> None:
    settings: Settings = {
        "clientID": "id",
        "clientSecret": "s",
        "scopes": "",
        "authURL": "https://p.example/a",
        "tokenURL": "https://p.example/t",
        "redirectURL": "http://localhost:3500/back",
        "forceHTTPS": "Yes",
    }
    one = made(tmp_path, "oauth2", settings)
    assert isinstance(one, OAuth2)
    assert (one.header, one.force_https, one.is_secure, one.scopes) == ("authorization", True, True, ())
    assert not replace(one, force_https=False).is_secure
    (fault,) = faults(tmp_path, "oauth2", {**settings, "forceHTTPS": "maybe"})
    assert "`maybe` is unknown (expected false" in fault
    (fault,) = faults(tmp_path, "oauth2", {**settings, "authURL": "/auth"})
    assert "`/auth` is not a URL" in fault


def test_secrets_in_plaintext_are_told(tmp_path: Path) -> None:
    settings = {"issuer": "http://i.example", "audience": "a", "jwksURL": "http://localhost/k"}
    found = read(tmp_path, [handler("m", "bearer")], component("m", "bearer", settings))
    assert [("is not https" in text, "i.example" in text) for text in found.warnings] == [(True, True)]


def test_setting_that_is_unknown_or_there_twice_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "ratelimit", {"maxRequestPerSecond": 1})
    assert (
        "spec.metadata[0].name: unknown setting `maxRequestPerSecond` (did you mean maxRequestsPerSecond?)"
        in fault
    )
    (fault,) = faults(tmp_path, "ratelimit", {"maxRequestsPerSecond": 1, "maxrequestspersecond": 2})
    assert "is there already" in fault


def test_name_that_would_break_a_header_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"metadata\.name: .* can't be used"):
        read(tmp_path, [handler('a"b', "ratelimit")], component('a"b', "ratelimit"))


def test_value_may_come_from_the_environment_and_not_from_a_secret_store(tmp_path: Path) -> None:
    from_env = {"maxRequestsPerSecond": {"as": {"envRef": "RATE"}}}
    assert made(tmp_path, "ratelimit", from_env, env={"RATE": "7"}) == RateLimit(name="m", per_s=7.0)
    assert "variable RATE is not set" in faults(tmp_path, "ratelimit", from_env)[0]
    for name in ("APP_API_TOKEN", "DAPR_API_TOKEN"):
        own = {"maxRequestsPerSecond": {"as": {"envRef": name}}}
        assert "not for components" in faults(tmp_path, "ratelimit", own, env={name: "7"})[0]
    secret = {"maxRequestsPerSecond": {"as": {"secretKeyRef": {"name": "a", "key": "b"}}}}
    assert "spec.metadata[0].secretKeyRef: names a secret" in faults(tmp_path, "ratelimit", secret)[0]


@pytest.mark.parametrize("kind", ["bearer", "ratelimit", "routerchecker", "whatever"])
@pytest.mark.parametrize("lenient", [True, False])
def test_handler_without_a_component_is_never_passed_over(tmp_path: Path, kind: str, lenient: bool) -> None:
    with pytest.raises(DocumentError, match="is not among the resources") as caught:
        read(tmp_path, [handler("guard", kind)], lenient=lenient)
    (fault,) = caught.value.faults
    assert (fault.line, fault.field) == (10, "spec.httpPipeline.handlers[0]")


@pytest.mark.parametrize(
    ("settings", "of_request", "of_response"),
    [
        ({}, True, False),
        ({"direction": "request"}, True, False),
        ({"direction": "Response"}, False, True),
        ({"direction": "both"}, True, True),
    ],
)
def test_direction_of_uppercase_is_read(
    tmp_path: Path, settings: Settings, of_request: bool, of_response: bool
) -> None:
    found = made(tmp_path, "uppercase", settings)
    assert found == Uppercase(name="m", request=of_request, response=of_response)


def test_unknown_direction_of_uppercase_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "uppercase", {"direction": "up"})
    assert "`up` is unknown (expected request, response or both)" in fault


def test_handler_that_keeps_nobody_out_is_passed_over_without_its_component(tmp_path: Path) -> None:
    alias = component("b", "routeralias", {"routes": {"/a": "/b"}})
    found = read(tmp_path, [handler("a", "routeralias"), handler("b", "routeralias")], alias)
    assert [one.name for one in found.pipelines.http] == ["b"]
    (warning,) = (
        text for text in found.warnings if "component a of type middleware.http.routeralias" in text
    )
    assert "c0.yaml" not in warning
    assert warning.endswith("passed over")


@pytest.mark.parametrize("kind", ["sentinel", "wasm", "whatever"])
def test_type_that_is_not_built_is_a_fault_that_names_the_component(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(tmp_path, [handler("m", kind)], component("m", kind))
    (fault,) = caught.value.faults
    for part in ("component m", "c0.yaml:1", f"middleware.http.{kind}"):
        assert part in fault.problem


def test_component_of_another_type_or_version_or_twice_is_not_taken(tmp_path: Path) -> None:
    for handlers in ([handler("m", "bearer")], [handler("m", "ratelimit", version="v2")]):
        with pytest.raises(
            DocumentError, match=r"the one of that name is of type middleware\.http\.ratelimit v1"
        ):
            read(tmp_path, handlers, component("m", "ratelimit"))
    with pytest.raises(DocumentError, match=r"is there twice, at .*c0\.yaml:1 and .*c1\.yaml:1"):
        read(tmp_path, [handler("m", "ratelimit")], component("m", "ratelimit"), component("m", "ratelimit"))


def test_component_for_other_apps_is_a_fault_and_one_of_two_may_be_ours(tmp_path: Path) -> None:
    theirs = component("m", "ratelimit", scopes=["other"])
    with pytest.raises(DocumentError, match="is scoped to other"):
        read(tmp_path, [handler("m", "ratelimit")], theirs)
    ours = component("m", "ratelimit", {"maxRequestsPerSecond": 5}, scopes=["x", "callee"])
    found = read(tmp_path, [handler("m", "ratelimit")], theirs, ours)
    assert found.pipelines.http == (RateLimit(name="m", per_s=5.0),)


def test_component_in_no_pipeline_and_one_of_another_type_are_told(tmp_path: Path) -> None:
    state = component("s", "x").replace("middleware.http.x", "state.redis")
    found = read(tmp_path, [], component("m", "wasm"), state)
    assert any("c0.yaml:5: metadata.name: is in no pipeline" in text for text in found.warnings)
    assert (
        "components other than HTTP middleware have no effect in postern: s (state.redis)" in found.warnings
    )


def test_components_for_us_of_types_that_are_built_are_listed(tmp_path: Path) -> None:
    limit, theirs = component("m", "ratelimit"), component("n", "ratelimit", scopes=["other"])
    found = read(tmp_path, [], limit, theirs, component("o", "wasm"))
    assert found.pipelines.components == (
        LoadedComponent(name="m", type="middleware.http.ratelimit", version="v1"),
    )


def test_key_that_may_be_meant_for_a_pipeline_is_not_forgiven(tmp_path: Path) -> None:
    text = configuration({"httpPipelines": {"handlers": [handler("a", "bearer")]}})
    with pytest.raises(DocumentError, match="httpPipelines"):
        load(sources(tmp_path, text, lenient=True))


def test_every_setting_is_in_the_reference() -> None:
    assert MIDDLEWARE.keys() == _KINDS.keys()
    for kind, read_kind in _KINDS.items():
        empty = schema.Component(kind="Component", spec=schema.ComponentSpec(type=kind))
        asked = Read(Document(path=Path("c"), value={}, places={(): (1, 1)}), empty, {}, Findings())
        read_kind(asked)
        assert MIDDLEWARE[kind].keys() <= set(asked._known.values()), kind


OPA: Settings = {
    "rego": "package http\ndefault allow = true",
    "postern.dev/opa-address": "http://localhost:8181",
}


def test_opa_is_an_authorizer_with_a_policy(tmp_path: Path) -> None:
    more = {"defaultStatus": "404", "includedHeaders": "X-A, x-b", "readBody": "false"}
    found = read(tmp_path, [handler("m", "opa")], component("m", "opa", {**OPA, **more}))
    (made,) = found.pipelines.http
    assert isinstance(made, Opa)
    asked = made.authorizer
    assert (asked.kind, asked.target, asked.rego) == ("opa", OPA["postern.dev/opa-address"], OPA["rego"])
    assert (asked.headers, asked.default_status, asked.tls) == (frozenset({"x-a", "x-b"}), 404, None)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"rego": ""}, "rego is missing"),
        ({"rego": "package other"}, "expected `package http`"),
        ({"rego": "package http\nallow = data.http.x"}, "names data.http"),
        ({"readBody": "true"}, "bodies are not read here"),
        (
            {"postern.dev/opa-address": ""},
            "postern.dev/opa-address is missing (expected the URL of an OPA server",
        ),
        ({"postern.dev/opa-address": "localhost"}, "is not a URL"),
        ({"defaultStatus": "99"}, "is not an HTTP status code"),
    ],
)
def test_faults_of_opa(tmp_path: Path, settings: Settings, problem: str) -> None:
    (fault,) = faults(tmp_path, "opa", {**OPA, **settings})
    assert problem in fault
