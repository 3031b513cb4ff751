"""Codes are stable and fit what the readers find."""

import re
from pathlib import Path

import pytest

from policies.analysis.codes import CODES, classify, found
from policies.errors import Fault


def fault(problem: str, field: str = "") -> Fault:
    return Fault(path=Path("x.yaml"), line=1, field=field, problem=problem)


def test_codes_are_unique_and_well_formed() -> None:
    codes = [code.code for code in CODES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"PST\d{4}", code) for code in codes)


@pytest.mark.parametrize(
    ("field", "problem", "code"),
    [
        ("spec.accesControl", "unknown key (did you mean accessControl?)", "PST0002"),
        ("spec.accessControl.policies[0].appId", "is missing", "PST0003"),
        ("spec.accessControl.policies", "is not a list (expected …)", "PST0004"),
        (
            "spec.logging.apiLogging.enabled",
            "is not a boolean (expected true or false, without quotes)",
            "PST0004",
        ),
        ("", "has no kind (expected one such as Resiliency)", "PST0005"),
        ("kind", "Resilency is unknown (did you mean Resiliency?)", "PST0005"),
        ("spec.features", "is known and has no effect in postern", "PST0006"),
        ("spec.policies.timeouts.x", "`5` has no unit and counts milliseconds (write 5ms)", "PST0007"),
        ("spec.accessControl.policies[0].operations[0].name", "/a/ never fits, since", "PST0101"),
        (
            "spec.accessControl.policies[0].operations[1].name",
            "/a never admits anything: /** on line 2",
            "PST0102",
        ),
        ("spec.accessControl.policies", "never apply, since mTLS is off and no caller", "PST0103"),
        (
            "spec.accessControl.policies[0].appId",
            "`*` is not a wildcard here, so this fits no caller",
            "PST0104",
        ),
        ("spec.accessControl.defaultAction", "`alow` is not an action (expected allow or deny)", "PST0109"),
        ("spec.targets.apps.cart.retry", "unknown policy 'x' (expected none)", "PST0201"),
        ("spec.policies.circuitBreakers.x.trip", "unknown name 'a' (expected …) (column 1)", "PST0204"),
        ("spec.policies.circuitBreakers.x.timeout", "`x` is not a duration", "PST0007"),
        ("spec.policies.retries.x.policy", "`often` is not a kind of retry", "PST0209"),
        ("spec.tracing.samplingRate", "`x` is not a sampling rate", "PST0301"),
        ("spec.httpPipeline.handlers[0]", "component x is not among the resources", "PST0401"),
        ("spec.baseUrl", "is not a URL", "PST0402"),
        ("apps[0].appDirPath", "/x does not exist (expected a path relative to /)", "PST0501"),
        ("apps[1].appPort", "80 is also appPort of a", "PST0502"),
        ("apps[1].dependsOn", "unknown app 'x' (expected one of y)", "PST0503"),
        ("apps[1]", "--app-protocol: 'x', expected http", "PST0509"),
        ("", "is not valid YAML: oh", "PST0001"),
        ("spec.secrets", "odd", "PST0099"),
    ],
)
def test_what_readers_find_has_a_code(field: str, problem: str, code: str) -> None:
    assert classify(fault(problem, field), is_warning=False).code == code


def test_refused_document_is_an_error_whatever_the_row_says() -> None:
    nothing = fault("is known and has no effect in postern", "spec.features")
    assert classify(nothing, is_warning=True).severity == "info"
    assert classify(nothing, is_warning=False).severity == "error"
    assert classify(fault("odd", "spec.x"), is_warning=True).severity == "warning"
    assert found("PST0202", fault("x")).severity == "warning"
