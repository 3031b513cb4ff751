"""Settings of components whose kinds of value no built middleware covers in full."""

from pathlib import Path

import pytest

from policies.reading import schema
from policies.reading.component_settings import Settings
from policies.reading.documents import Document
from policies.reading.findings import Findings

DOCUMENT = Document(path=Path("c.yaml"), value={}, places={(): (1, 1)})


def settings(findings: Findings, **values: object) -> Settings:
    items = [schema.NameValue(name=name, value=value) for name, value in values.items()]
    component = schema.Component(
        kind="Component",
        metadata=schema.Metadata(name="m"),
        spec=schema.ComponentSpec(type="middleware.http.x", metadata=items),
    )
    return Settings(DOCUMENT, component, {}, findings)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (7, "7"), (0.5, "0.5"), (" a ", "a"), (None, "")]
)
def test_values_of_any_type_are_read_as_text(value: object, text: str) -> None:
    findings = Findings()
    assert settings(findings, one=value).text("one") == text
    assert findings.faults == []


def test_two_names_of_one_setting_are_a_fault() -> None:
    findings = Findings()
    one = settings(findings, issuer="a", issuerURL="b")
    assert one.text("issuer", "issuerURL") == "a"
    assert "two names of one setting" in findings.faults[0].problem


def test_mapping_where_text_is_wanted_is_a_fault() -> None:
    findings = Findings()
    settings(findings, one={"a": 1}).text("one")
    assert "is not text" in findings.faults[0].problem
