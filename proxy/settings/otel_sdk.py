"""OpenTelemetry's variables that are about the SDK as a whole: the sampler, whether anything is exported, and those without effect here.

Source: OpenTelemetry's environment variable specification, general SDK configuration.
"""

from typing import Final

from proxy.settings.access_log import OTLP
from proxy.settings.readers import FlagReader
from proxy.settings.values import Profile

_PARENT_BASED: Final = "parentbased_"
_RATIO: Final = "traceidratio"
_SAMPLERS: Final = ("always_on", "always_off", _RATIO)
_FOREIGN: Final = frozenset({"jaeger_remote", "parentbased_jaeger_remote", "xray"})
_NOT_AS_DAPRD: Final = "daprd does not read it"
#: With effect, but not as daprd.
SDK_VARIABLES: Final = frozenset(
    {"OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_METRICS_EXPORTER"}
)


def is_disabled(read: FlagReader, profile: Profile) -> bool:
    """Whether OTEL_SDK_DISABLED says so; as daprd, never."""
    text = "" if profile == "daprd" else _word(read, variable="OTEL_SDK_DISABLED")
    if text not in ("", "true", "false"):
        read.fault("OTEL_SDK_DISABLED", repr(text), "true or false")
    return text == "true"


def sampler_rate(read: FlagReader, profile: Profile) -> float | None:
    """The share of new traces that OTEL_TRACES_SAMPLER asks for, 0 to 1; None where it is unset or a sampler that we do not have."""
    name = "" if profile == "daprd" else _word(read, variable="OTEL_TRACES_SAMPLER")
    kind = name.removeprefix(_PARENT_BASED)
    if not name or name in _FOREIGN:
        return None
    if kind not in _SAMPLERS:
        expected = f"{', '.join(_SAMPLERS)}, or one of these after {_PARENT_BASED}"
        read.fault("OTEL_TRACES_SAMPLER", repr(name), expected)
        return None
    return _ratio(read, variable="OTEL_TRACES_SAMPLER_ARG") if kind == _RATIO else float(kind == "always_on")


def sdk_warnings(read: FlagReader, profile: Profile) -> list[str]:
    """What is set and has no effect, or another one than its name says; one line each."""
    told = [
        *_unused(
            read, "headers are those of spec.tracing.accept of a Configuration", variable="OTEL_PROPAGATORS"
        ),
    ]
    if profile == "daprd":
        return [
            *told,
            *_unused(read, _NOT_AS_DAPRD, variable="OTEL_TRACES_SAMPLER"),
            *_unused(read, _NOT_AS_DAPRD, variable="OTEL_TRACES_SAMPLER_ARG"),
            *_unused(read, _NOT_AS_DAPRD, variable="OTEL_SDK_DISABLED"),
            *_unused(read, _NOT_AS_DAPRD, variable="OTEL_METRICS_EXPORTER"),
        ]
    told += _sampler_warnings(read)
    exported = {name.strip() for name in _word(read, variable="OTEL_METRICS_EXPORTER").split(",")} - {""}
    if "otlp" in exported and not read.env.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "").strip():
        told.append(
            "OTEL_METRICS_EXPORTER: otlp has no effect: metrics are pushed where OTEL_EXPORTER_OTLP_METRICS_ENDPOINT says"
        )
    told += [
        f"OTEL_METRICS_EXPORTER: {name} has no effect: metrics are pushed as OTLP, and served for Prometheus at --metrics-port"
        for name in sorted(exported - {"otlp", "prometheus", "none"})
    ]
    if is_disabled(read, profile) and read.or_env("access-log", "POSTERN_ACCESS_LOG", "") == OTLP:
        told.append(f"--access-log {OTLP} has no effect: OTEL_SDK_DISABLED is true")
    return told


def pushes_metrics(read: FlagReader, profile: Profile) -> bool:
    """Whether OTEL_METRICS_EXPORTER leaves room for OTLP: it is unset or names it; as daprd, always."""
    text = "" if profile == "daprd" else _word(read, variable="OTEL_METRICS_EXPORTER")
    return not text or "otlp" in {name.strip() for name in text.split(",")}


def _sampler_warnings(read: FlagReader) -> list[str]:
    name, argument = (
        _word(read, variable="OTEL_TRACES_SAMPLER"),
        _word(read, variable="OTEL_TRACES_SAMPLER_ARG"),
    )
    told = []
    if name in _FOREIGN:
        told.append(f"OTEL_TRACES_SAMPLER: {name} has no effect: postern does not have this sampler")
    elif name and not name.startswith(_PARENT_BASED):
        told.append(
            f"OTEL_TRACES_SAMPLER: {name} is taken as {_PARENT_BASED}{name}: a caller's own decision holds"
        )
    if argument and name.removeprefix(_PARENT_BASED) != _RATIO:
        told.append(f"OTEL_TRACES_SAMPLER_ARG has no effect: OTEL_TRACES_SAMPLER does not name {_RATIO}")
    return told


def _unused(read: FlagReader, reason: str, *, variable: str) -> list[str]:
    return [f"{variable} has no effect: {reason}"] if _word(read, variable=variable) else []


def _ratio(read: FlagReader, *, variable: str) -> float:
    text = read.env.get(variable, "").strip()
    try:
        ratio = float(text or "1")
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:  # NaN is not
        read.fault(variable, repr(text), "a number from 0 to 1")
        return 1.0
    return ratio


def _word(read: FlagReader, *, variable: str) -> str:
    """In lower case: OpenTelemetry has names and booleans be read in any."""
    return read.env.get(variable, "").strip().lower()
