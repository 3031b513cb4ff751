from __future__ import annotations

from pathlib import Path

import pytest

from nameresolution.errors import ComponentConfigurationError, StaticFileError, UnknownComponentError
from nameresolution.host_registry import HostRegistry
from nameresolution.resolvers import Surroundings, build
from proxy.wire.http_client import request


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    return Surroundings(namespace="default", registry=HostRegistry(tmp_path), request=request)


def sources(component: str | None, configuration: dict[str, object], surroundings: Surroundings) -> list[str]:
    return [resolver.source for resolver in build(component, configuration, surroundings)]


@pytest.mark.parametrize("component", [None, ""])
def test_build_without_component_gives_the_chain(component: str | None, surroundings: Surroundings) -> None:
    assert sources(component, {}, surroundings) == ["host registry", "mdns"]


def test_build_chain_with_a_file_puts_it_first(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("cart: h:1")
    with_file = Surroundings(
        namespace="default", registry=HostRegistry(tmp_path), request=request, static_file=path
    )
    assert sources(None, {}, with_file) == ["file", "host registry", "mdns"]


def test_build_of_a_named_component_replaces_the_chain(tmp_path: Path, surroundings: Surroundings) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("cart: h:1")
    assert sources("mDNS", {"include": ["eth*"], "budget": 1.5}, surroundings) == ["mdns"]
    assert sources("file", {"path": str(path)}, surroundings) == ["file"]


@pytest.mark.parametrize("component", ["kubernetes", "nameformat", "aws.cloudmap"])
def test_build_of_a_planned_component_says_so(component: str, surroundings: Surroundings) -> None:
    with pytest.raises(
        UnknownComponentError,
        match=r"is not built yet, expected consul or file or hashicorp.consul or mdns or sqlite",
    ):
        build(component, {}, surroundings)


def test_build_of_an_unknown_component_names_the_known(surroundings: Surroundings) -> None:
    with pytest.raises(
        UnknownComponentError,
        match=r"'zookeeper' is not a .* expected consul or file or hashicorp.consul or mdns or sqlite",
    ):
        build("zookeeper", {}, surroundings)


@pytest.mark.parametrize(
    ("component", "configuration", "field"),
    [
        ("file", {}, "path"),
        ("file", {"path": 1}, "path"),
        ("file", {"path": "/x", "reload": True}, "reload"),
        ("mdns", {"include": "eth0"}, "include"),
        ("mdns", {"exclude": [1]}, "exclude"),
        ("mdns", {"budget": "2s"}, "budget"),
        ("mdns", {"budget": 0}, "budget"),
        ("mdns", {"interface": []}, "interface"),
    ],
)
def test_build_names_the_field_that_is_wrong(
    component: str, configuration: dict[str, object], field: str, surroundings: Surroundings
) -> None:
    with pytest.raises(ComponentConfigurationError) as refused:
        build(component, configuration, surroundings)
    assert refused.value.field == field


def test_build_of_a_missing_file_fails_at_start(surroundings: Surroundings) -> None:
    with pytest.raises(StaticFileError, match="No such file"):
        build("file", {"path": "/nonexistent/endpoints.yaml"}, surroundings)
