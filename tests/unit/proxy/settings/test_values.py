"""Whatever can be set has a reader: flags, variables, settings, fields of resources, limits. And every metric is fed."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from msgspec import Struct

from policies.rules import configuration
from policies.rules.resiliency import ResiliencyRules, RetryRule, TargetRules
from proxy.contract.engine import Limits
from proxy.reference import environment
from proxy.settings.flags import FLAGS
from proxy.settings.parsing import parse
from proxy.settings.values import AppHealth, OwnPort, PortWish, RunMetadata, Settings
from sentry import config as sentry_config
from sentry.config import Settings as SentrySettings
from telemetry.metrics import Meters
from telemetry.series import Family

ROOT = Path(__file__).parents[4]
ROOMS = ("proxy", "nameresolution", "sentry", "policies", "telemetry")
# Where a setting is made: to stand there is no effect.
MAKERS = frozenset({"proxy/settings/parsing.py", "proxy/reference/limits.py", "proxy/reference/page.py"})
# Limits that one engine alone has, and why.
OF_ONE_ENGINE = {"rest_s": "the portable engine's connections hold little that they could give back"}


@cache
def sources() -> Mapping[str, ast.Module]:
    """Every module of ours, parsed."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            found[str(path.relative_to(ROOT))] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def attributes_read(
    without: frozenset[str], below: str = "", of: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Names of all attributes that modules read, but for those in `without`. of: only from objects that are called so."""
    return frozenset(
        node.attr
        for name, module in sources().items()
        if name.startswith(below) and not any(name.startswith(other) for other in without)
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if not of or _name_of(node.value) in of
    )


def _name_of(node: ast.expr) -> str:
    """`x` of `x`, `y.x` and `y.x()`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lstrip("_")
        case ast.Call(func=func):
            return _name_of(func)
        case _:
            return ""


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Settings, {"settings", "self"}),
        (AppHealth, {"health", "app_health"}),
        (OwnPort, {"own", "self"}),
        (PortWish, {"wish"}),
        (RunMetadata, {"run"}),
        (SentrySettings, {"settings"}),
        (sentry_config.TokenSource, {"source", "token_source", "found"}),
    ],
)
def test_every_setting_has_a_reader(model: type[Struct], names: set[str]) -> None:
    unread = set(model.__struct_fields__) - attributes_read(MAKERS, of=frozenset(names))
    assert not unread, f"set by a flag or variable, and read by nobody: {sorted(unread)}"


class Told(dict[str, str]):
    """An environment that notes what it is asked for."""

    def __init__(self, home: Path) -> None:
        super().__init__(HOME=str(home))
        self.asked = set[str]()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked.add(key)
        return super().get(key, default)


#: Where flags are read.
READING = ("parsing", "readers", "access_log")


def test_every_flag_is_read_or_warned_of(tmp_path: Path) -> None:
    never = set(FLAGS) - {text for name in READING for text in _texts_in(f"proxy/settings/{name}.py")}
    warned = {name for name, flag in FLAGS.items() if flag.kind.startswith("unbuilt")}
    assert never - warned == set(), "flags that proxy/settings/parsing.py never reads"
    given = [f"--{name}=value" for name in sorted(warned)]
    warnings = "\n".join(parse(["--app-id=a", f"--runtime-path={tmp_path / 'root'}", *given], {}).warnings)
    assert {name for name in warned if f"--{name} " not in warnings} == set()


def test_every_variable_that_is_read_is_in_the_reference_and_no_other(tmp_path: Path) -> None:
    read = {
        text for name in sources() if name != "proxy/reference/environment.py" for text in _variables_in(name)
    }
    assert read == set(environment.READ)
    told = Told(tmp_path)
    parse(["--app-id=a", "--sentry-address=127.0.0.1:1", "--insecure-plaintext"], told)
    assert {
        re.sub("_OTLP_(TRACES|METRICS|LOGS)_(?!TEMPORALITY)", "_OTLP_", name) for name in told.asked
    } <= set(environment.READ)


def _texts_in(name: str) -> Iterator[str]:
    for node in ast.walk(sources()[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _variables_in(name: str) -> Iterator[str]:
    """What a module asks an environment for: `env.get("X")`, `env["X"]`, `variable="X"`, `or_env(_, "X")`, `_any(env, "X")`."""
    for node in ast.walk(sources()[name]):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Name(id="env") | ast.Attribute(attr="env")),
                args=[ast.Constant(value=str(text)), *_],
            ):
                yield text
            case ast.Call(func=ast.Name(id="_any"), args=[ast.Name(id="env"), ast.Constant(value=str(text))]):
                yield text
            case ast.Subscript(value=ast.Name(id="env"), slice=ast.Constant(value=str(text))):
                yield text
            case ast.keyword(arg="variable", value=ast.Constant(value=str(text))) if text:
                yield text
            case ast.Call(func=ast.Attribute(attr="or_env"), args=[_, ast.Constant(value=str(text)), *_]):
                yield text
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Name(id="environment")),
                args=[ast.Constant(value=str(text)), *_],
            ):
                yield text


COMPILED = (
    configuration.OtelConfig,
    configuration.TracingConfig,
    configuration.MetricRule,
    configuration.MetricsConfig,
    configuration.NameResolutionConfig,
    configuration.LoggingConfig,
    configuration.ConfigurationValues,
    RetryRule,
    TargetRules,
    ResiliencyRules,
)


@pytest.mark.parametrize("model", COMPILED)
def test_every_compiled_field_of_a_resource_has_a_reader(model: type[Struct]) -> None:
    makers = frozenset({"policies/reading/", "policies/rules/configuration", "sentry/"})
    unread = set(model.__struct_fields__) - attributes_read(makers | MAKERS)
    assert not unread, f"compiled, and read by nobody: {sorted(unread)}"


@pytest.mark.parametrize("engine", ["portable", "native"])
def test_every_limit_holds_in_each_engine(engine: str) -> None:
    if engine == "portable":
        used = attributes_read(frozenset(), "proxy/engine/portable/") | attributes_read(
            frozenset(), "proxy/wire/"
        )
    else:
        rust = "".join(
            path.read_text(encoding="utf-8")
            for path in sorted((ROOT / "proxy/engine/native/crates/core/src").rglob("*.rs"))
            if path.name != "limits.rs"
        )
        used = frozenset(re.findall(r"limits\s*\.(\w+)", rust))
    names = {
        name if engine == "portable" else re.sub(r"(?<!per)_s$", "", name)
        for name in Limits.__struct_fields__
    }
    assert names - used == (set(OF_ONE_ENGINE) if engine == "portable" else set())


def test_every_metric_is_fed() -> None:
    meters = Meters("app")
    declared = {name for name, value in vars(meters).items() if isinstance(value, Family)}
    unfed = declared - attributes_read(frozenset(), of=frozenset({"meters", "self"}))
    assert not unfed, f"declared, and never fed: {sorted(unfed)}"
