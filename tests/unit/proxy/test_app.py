"""What stops a sidecar before it has begun, and what it is made of when nothing does."""

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from policies.reloading.reader_process import Loading
from proxy.app import Sidecar
from proxy.control.lifetime import Lifetime
from proxy.control.policy_sources import policy_sources
from proxy.errors import ConfigError
from proxy.settings.parsing import parse
from proxy.settings.values import Settings


def settings_of(root: Path, *flags: str, **changes: Any) -> Settings:
    made = parse(["--app-id", "web", *flags], {"POSTERN_HOME": str(root)})
    return replace(made, **changes)


def sidecar(settings: Settings) -> Sidecar:
    return Sidecar(settings, Lifetime(None, supervised=False), Loading(policy_sources(settings)))


async def test_sidecar_that_was_only_made_has_opened_nothing(tmp_path: Path) -> None:
    sidecar(settings_of(tmp_path))
    assert [files for _, _, files in os.walk(tmp_path) if files] == []


@pytest.mark.parametrize(
    ("routes", "text"),
    [
        (("nonsense",), "SERVICE=APP"),
        (("shop.Cart=a.b.c",), "invalid app-id"),
        (("{A}{A}={a}",), "twice"),
        (("ok.S=cart", "x.{N}={m}"), "right only"),
    ],
)
def test_route_that_means_nothing_stops_the_start(tmp_path: Path, routes: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        sidecar(settings_of(tmp_path, routes=routes))


def test_endpoints_file_that_can_not_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yaml").write_text("cart: [unclosed")
    with pytest.raises(ConfigError, match=r"endpoints\.yaml"):
        sidecar(settings_of(tmp_path))


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("component: dns", r"rules\.yaml:4: nameResolution\.component 'dns' is not"),
        (
            "component: file, configuration: {path: 7}",
            r"rules\.yaml:4: nameResolution\.configuration of 'file': path",
        ),
    ],
)
def test_name_resolution_that_can_not_be_had_names_its_file_and_line(
    tmp_path: Path, section: str, text: str
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"kind: Configuration\nspec:\n  nameResolution:\n    {{{section}}}\n")
    with pytest.raises(ConfigError, match=text):
        sidecar(settings_of(tmp_path, "--config", str(rules)))


def test_fault_that_may_be_forgiven_says_how(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("kind: Configuration\nspec:\n  tracin: {}\n  nameResolution: 7\n")
    with pytest.raises(ConfigError) as raised:
        sidecar(settings_of(tmp_path, "--config", str(rules)))
    unknown, wrong = sorted(raised.value.faults, key=lambda fault: "nameResolution" in fault)
    assert unknown.endswith("; --config-lenient starts without it")
    assert "--config-lenient" not in wrong
    with pytest.raises(ConfigError) as raised:
        sidecar(settings_of(tmp_path, "--config", str(rules), "--config-lenient"))
    assert len(raised.value.faults) == 1
