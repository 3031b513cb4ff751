"""HTTPEndpoint resources: what they become, and where their faults are."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.reloading.loading import PolicySnapshot, load
from tests.support.web_pki import WebCa
from tests.unit.policies.writing import sources

CA = WebCa()


def loaded(
    folder: Path,
    spec: Mapping[str, object],
    *,
    name: object = "pay",
    env: Mapping[str, str] | None = None,
    lenient: bool = False,
    **more: object,
) -> PolicySnapshot:
    resource = {"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": name}, **more}
    text = json.dumps({**resource, "spec": spec}, indent=1)
    return load(sources(folder, resources={"pay.yaml": text}, env=env or {}, lenient=lenient))


def faults(folder: Path, spec: Mapping[str, object], **more: object) -> list[str]:
    with pytest.raises(DocumentError) as raised:
        loaded(folder, spec, **more)  # type: ignore[arg-type]
    return [f"{fault.line}: {fault.field}: {fault.problem}" for fault in raised.value.faults]


def test_endpoint_has_its_url_and_headers(tmp_path: Path) -> None:
    headers = [
        {"name": "X-Key", "value": " k "},
        {"name": "X-Env", "envRef": "KEY"},
        {"name": "x-n", "value": 3},
    ]
    snapshot = loaded(
        tmp_path, {"baseUrl": "https://api.example.com/v1/", "headers": headers}, env={"KEY": "of the env"}
    )
    (found,) = snapshot.http_endpoints.values()
    assert (found.name, str(found.url)) == ("pay", "https://api.example.com/v1")
    assert found.headers == ((b"x-key", b"k"), (b"x-env", b"of the env"), (b"x-n", b"3"))
    assert "k" not in repr(found).removeprefix("HttpEndpoint(pay)")
    assert snapshot.warnings == ()


def test_endpoint_may_write_a_version(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"version": "v1alpha1", "baseUrl": "http://h"})
    assert (set(found.http_endpoints), found.warnings) == ({"pay"}, ())


def test_endpoint_of_other_apps_is_checked_and_left_out(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"baseUrl": "http://h"}, scopes=["other"]).http_endpoints == {}
    assert set(loaded(tmp_path, {"baseUrl": "http://h"}, scopes=["callee"]).http_endpoints) == {"pay"}
    assert faults(tmp_path, {"baseUrl": "h"}, scopes=["other"]) != []


def test_second_endpoint_of_a_name_is_a_fault(tmp_path: Path) -> None:
    text = "kind: HTTPEndpoint\nmetadata: {name: pay}\nspec: {baseUrl: http://h}\n"
    with pytest.raises(DocumentError, match=r"b\.yaml:2: metadata\.name: a second HTTPEndpoint is named pay"):
        load(sources(tmp_path, resources={"a.yaml": text, "b.yaml": text}, env={}))


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({}, "7: spec.baseUrl: is missing"),
        ({"baseUrl": "h/x"}, "8: spec.baseUrl: `h/x` can't be used: it does not begin with http:// or https://"),
        (
            {"baseUrl": "https://u:pa55@h/v1?token=Q"},
            "8: spec.baseUrl: `https://(removed)@h/v1?(removed)` can't be used: it holds a query",
        ),
        ({"baseUrl": "http://h", "header": []}, "9: spec.header: unknown key (did you mean headers?)"),
        ({"baseUrl": "http://h", "headers": [{"name": "a b", "value": "x"}]}, "11: spec.headers[0].name: `a b`"),
        ({"baseUrl": "http://h", "headers": [{"name": "Host", "value": "x"}]}, "11: spec.headers[0].name: Host is not for"),
        ({"baseUrl": "http://h", "headers": [{"name": "x", "value": "a\nb"}]}, "12: spec.headers[0].value: holds control"),
        ({"baseUrl": "http://h", "headers": [{"name": "x", "envRef": "NO"}]}, "12: spec.headers[0].envRef: variable NO is not set"),
        ({"baseUrl": "http://h", "headers": [{"name": "x", "envRef": "DAPR_X"}]}, "12: spec.headers[0].envRef: DAPR_X is for"),
        ({"baseUrl": "http://h", "headers": [{"name": "x", "secretKeyRef": {"name": "s"}}]}, "12: spec.headers[0].secretKeyRef: "),
        ({"baseUrl": "https://h", "clientTLS": {"rootCA": {"value": "x"}}}, "10: spec.clientTLS.rootCA: contains no readable certificate"),
        ({"baseUrl": "https://h", "clientTLS": {"privateKey": {"value": "x"}}}, "9: spec.clientTLS: has a privateKey"),
        ({"baseUrl": "https://h", "clientTLS": {"certificate": {"secretKeyRef": {}}}}, "11: spec.clientTLS.certificate.secretKeyRef: "),
        ({"baseUrl": "http://h", "clientTLS": {}}, "9: spec.clientTLS: is for https, and baseUrl is http"),
    ],
)  # fmt: skip
def test_fault_has_its_line_and_field(tmp_path: Path, spec: Mapping[str, object], fault: str) -> None:
    (found,) = faults(tmp_path, spec)
    assert found.startswith(fault)


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "x" * 65])
def test_name_that_cannot_be_called_is_a_fault(tmp_path: Path, name: str) -> None:
    (found,) = faults(tmp_path, {"baseUrl": "http://h"}, name=name)
    assert found.startswith("5: metadata.name: ")


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    (certificate, key), (_, other) = CA.leaf(), CA.leaf()

    def spec(key: bytes) -> dict[str, object]:
        tls = {"certificate": {"value": certificate.decode()}, "privateKey": {"value": key.decode()}}
        return {"baseUrl": "https://h", "clientTLS": {**tls, "rootCA": {"envRef": "ROOT"}}}

    env = {"ROOT": CA.root_pem.decode()}
    (found,) = loaded(tmp_path, spec(key), env=env).http_endpoints.values()
    assert (found.tls.root_ca, found.tls.private_key) == (CA.root_pem, key)
    assert "BEGIN" not in repr(found.tls)
    (wrong,) = faults(tmp_path, spec(other), env=env)
    assert "spec.clientTLS.privateKey: is not the key of the certificate" in wrong
    (bad,) = faults(tmp_path, spec(b"nothing"), env=env)
    assert "spec.clientTLS.privateKey: contains no readable key" in bad


def test_renegotiation_is_taken_as_never_with_a_warning(tmp_path: Path) -> None:
    (warning,) = loaded(
        tmp_path, {"baseUrl": "https://h", "clientTLS": {"renegotiation": "OnceAsClient"}}
    ).warnings
    assert "spec.clientTLS.renegotiation: is taken as Never" in warning
    assert loaded(tmp_path, {"baseUrl": "https://h", "clientTLS": {"renegotiation": "Never"}}).warnings == ()


def test_secret_store_has_no_effect_and_is_named(tmp_path: Path) -> None:
    (warning,) = loaded(tmp_path, {"baseUrl": "http://h"}, auth={"secretStore": "vault"}).warnings
    assert "auth.secretStore: is known and has no effect in postern" in warning


def test_lenient_loading_leaves_out_what_an_endpoint_may_not_set(tmp_path: Path) -> None:
    snapshot = loaded(
        tmp_path, {"baseUrl": "http://h", "headers": [{"name": "te", "value": "x"}]}, lenient=True
    )
    assert snapshot.http_endpoints["pay"].headers == ()
    assert "forgiven" in snapshot.warnings[0]
