"""The sections of Configurations other than access control -> ConfigurationValues; every fault at once."""

import difflib
import itertools
import re
from collections.abc import Sequence
from typing import TypeVar

from policies.reading import schema
from policies.reading.compile_tracing import compile_tracing
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.effects import CONFIGURATION, warn_of_nothing
from policies.reading.findings import Findings
from policies.reading.validation import to_struct
from policies.rules.api_lists import NAMES, PROTOCOLS, ApiLists, ApiRule, version_of
from policies.rules.configuration import (
    LATENCY_BUCKETS_MS,
    AccessLogConfig,
    ConfigurationValues,
    LoggingConfig,
    MetricRule,
    MetricsConfig,
    NameResolutionConfig,
)

SectionT = TypeVar("SectionT", bound=schema.Section)

_ACCESS_LOG: Place = ("spec", "logging", "accessLog")
_RESOLUTION: Place = ("spec", "nameResolution")
_MTLS: Place = ("spec", "mtls")


def compile_configuration(
    documents: Sequence[tuple[Document, schema.Configuration]],
    findings: Findings,
) -> ConfigurationValues:
    """The values of Configurations merged in order. Each is checked on its own, so that faults have a place."""
    for document, configuration in documents:
        warn_of_nothing(document, CONFIGURATION, findings)
        compile_tracing(document, configuration.spec.tracing, findings)
        _metrics(document, _spec(document), findings)
        _access_log(document, configuration.spec.logging.access_log, findings)
        _check_mtls(document, configuration.spec.mtls, findings)
        _check_name_resolution(document, configuration.spec.name_resolution, findings)
        _api(document, configuration.spec.api, findings)
    if not documents:
        return ConfigurationValues()
    last = documents[-1][0]
    spec, raw = documents[0][1].spec, _spec(documents[0][0])
    if len(documents) > 1:
        raw = {}
        for document, _ in documents:
            raw = _laid_over(raw, _spec(document))
        raw.pop("accessControl", None)
        spec = _known(raw, schema.ConfigurationSpec)
    quiet = Findings()
    return ConfigurationValues(
        tracing=compile_tracing(last, spec.tracing, quiet),
        metrics=_metrics(last, raw, quiet),
        name_resolution=_name_resolution(spec.name_resolution),
        name_resolution_at=_resolved_at(documents),
        logging=LoggingConfig(
            api_enabled=spec.logging.api_logging.enabled,
            obfuscate_urls=spec.logging.api_logging.obfuscate_urls,
            omit_health_checks=spec.logging.api_logging.omit_health_checks,
            access=_access_log(last, spec.logging.access_log, quiet),
        ),
        api=_api(last, spec.api, quiet),
        features=_features(spec.features),
    )


def _features(written: object) -> tuple[str, ...]:
    """The names of those that are enabled; what is no list of features has none, as nothing depends on them."""
    entries = [_mapping(entry) for entry in written] if isinstance(written, list) else []
    names = [entry.get("name") for entry in entries if entry.get("enabled") is True]
    return tuple(name for name in names if isinstance(name, str))


def _spec(document: Document) -> dict[str, object]:
    return _mapping(_mapping(document.value).get("spec"))


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _known(raw: dict[str, object], model: type[SectionT]) -> SectionT:
    """A section of values whose faults were told where they stand; unknown keys are left out."""
    return to_struct(raw, model, lambda *_: None) or model()


def _laid_over(below: dict[str, object], above: dict[str, object]) -> dict[str, object]:
    """Mappings join key by key; anything else of `above` replaces what is below."""
    joined = dict(below)
    for key, value in above.items():
        under = joined.get(key)
        joined[key] = (
            _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
        )
    return joined


def _access_log(document: Document, log: schema.AccessLog, findings: Findings) -> AccessLogConfig:
    slower_s = findings.duration(document, (*_ACCESS_LOG, "slowerThan"), log.slower_than)
    if log.min_status is not None and not 0 <= log.min_status <= 999:
        problem = f"`{log.min_status}` is not a status (expected one from 0 to 999)"
        findings.fault(document, (*_ACCESS_LOG, "minStatus"), problem)
    if log.sample is not None and log.sample < 1:
        problem = f"`{log.sample}` is not a sampling rate (expected a whole number N, at least 1: one call in N has a line)"
        findings.fault(document, (*_ACCESS_LOG, "sample"), problem)
    return AccessLogConfig(
        format=log.format,
        headers=tuple(log.headers),
        min_status=log.min_status,
        slower_s=slower_s,
        sample=log.sample,
    )


def _metrics(document: Document, spec: dict[str, object], findings: Findings) -> MetricsConfig:
    """Of `spec.metrics` laid over the older `spec.metric`; both were found to fit the schema."""
    place: Place = ("spec", "metrics" if "metrics" in spec else "metric")
    metrics = _known(_laid_over(_mapping(spec.get("metric")), _mapping(spec.get("metrics"))), schema.Metrics)
    buckets = tuple(metrics.latency_distribution_buckets)
    if any(low >= high for low, high in itertools.pairwise(buckets)) or any(b <= 0 for b in buckets):
        problem = "doesn't rise from above 0 (expected milliseconds in ascending order)"
        findings.fault(document, (*place, "latencyDistributionBuckets"), problem)
    rules: list[MetricRule] = []
    for number, rule in enumerate(metrics.rules):
        for position, label in enumerate(rule.labels):
            spot: Place = (*place, "rules", number, "labels", position, "regex")
            _check_patterns(document, spot, label.regex, findings)
            rules.append(
                MetricRule(metric=rule.name, label=label.name, replacements=tuple(label.regex.items())),
            )
    return MetricsConfig(
        enabled=metrics.enabled,
        record_error_codes=metrics.record_error_codes,
        latency_buckets_ms=buckets or LATENCY_BUCKETS_MS,
        increased_cardinality=metrics.http.increased_cardinality,
        path_matching=tuple(metrics.http.path_matching),
        exclude_verbs=metrics.http.exclude_verbs,
        rules=tuple(rules),
    )


def _check_patterns(document: Document, place: Place, patterns: dict[str, str], findings: Findings) -> None:
    for replacement, pattern in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            findings.fault(document, (*place, replacement), f"is not a valid regular expression: {error.msg}")


def _check_mtls(document: Document, mtls: schema.Mtls, findings: Findings) -> None:
    """For the sentry that may read the same file."""
    findings.duration(document, (*_MTLS, "workloadCertTTL"), mtls.workload_cert_ttl)
    findings.duration(document, (*_MTLS, "allowedClockSkew"), mtls.allowed_clock_skew)


def _check_name_resolution(document: Document, section: schema.NameResolution, findings: Findings) -> None:
    if section.version.lower() not in {"", "v1"}:
        problem = f"unknown version `{section.version}` of {section.component} (expected v1)"
        findings.fault(document, (*_RESOLUTION, "version"), problem, is_lenient=True)


def _name_resolution(section: schema.NameResolution) -> NameResolutionConfig | None:
    if not section.component:
        return None
    return NameResolutionConfig(
        component=section.component.lower(),
        configuration=section.configuration,
    )


def _resolved_at(documents: Sequence[tuple[Document, schema.Configuration]]) -> str:
    """Where the component that counts is named, the last one."""
    found = [document for document, one in documents if one.spec.name_resolution.component]
    return f"{found[-1].path}:{found[-1].line_of((*_RESOLUTION, 'component'))}" if found else ""


def _api(document: Document, api: schema.Api, findings: Findings) -> ApiLists:
    """A rule that says nothing is a fault: where it denies, what it was to close would be open."""
    lists: dict[str, list[ApiRule]] = {"allowed": [], "denied": []}
    for key, rules in (("allowed", api.allowed), ("denied", api.denied)):
        for number, rule in enumerate(rules):
            place: Place = ("spec", "api", key, number)
            version = version_of(rule.version)
            protocol = next((one for one in PROTOCOLS if one == rule.protocol.lower()), None)
            name = rule.name.strip("/")
            if version is None:
                problem = f"`{rule.version}` is not a version (expected v1, v1.0 or one such as v1alpha1)"
                findings.fault(document, (*place, "version"), problem)
            if protocol is None:
                findings.fault(
                    document, (*place, "protocol"), f"`{rule.protocol}` is unknown (expected http or grpc)"
                )
            if name.partition("/")[0] not in NAMES or (protocol == "grpc" and name not in NAMES):
                close = difflib.get_close_matches(name, NAMES, n=1)
                hint = f"did you mean {close[0]}?" if close else "expected one such as invoke or metadata"
                findings.fault(document, (*place, "name"), f"`{rule.name}` is not an API of Dapr's ({hint})")
            elif version is not None and protocol is not None:
                lists[key].append(ApiRule(name=name, version=version, protocol=protocol))
    return ApiLists(allowed=tuple(lists["allowed"]), denied=tuple(lists["denied"]))
