"""Sentry's counters as Prometheus metrics: Dapr's six names, our own for refusals by reason and the root's expiry, and its process.

Reasons are the audit log's, a fixed set of words; nothing that a request says becomes a label.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentry.authority import Authority
from sentry.service import SigningService

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(service: SigningService, authority: Authority) -> bytes:
    """All metrics in Prometheus' text format."""
    from prometheus_client import (  # noqa: PLC0415 -- only where somebody scrapes
        CollectorRegistry,
        ProcessCollector,
        generate_latest,
    )

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(service, authority))
    return generate_latest(registry)


class _Collector:
    def __init__(self, service: SigningService, authority: Authority) -> None:
        self._service = service
        self._authority = authority

    def describe(self) -> "list[Metric]":
        return []  # registering reads nothing

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 -- as in render

        service, authority = self._service, self._authority
        failed = service.refused.total()
        for name, about, count in (
            ("cert_sign_request_received", "Requests for certificates", service.signed_count + failed),
            ("cert_sign_success", "Certificates issued", service.signed_count),
            ("servercert_issue_failed", "Failures to issue sentry's own certificate", authority.own_failures),
            (
                "issuercert_changed",
                "Issuer certificates put to use after the first",
                authority.issuer_changes,
            ),
        ):
            yield CounterMetricFamily(f"dapr_sentry_{name}", about, value=count)
        failures = CounterMetricFamily(
            "dapr_sentry_cert_sign_failure", "Requests that ended without a certificate", labels=("reason",)
        )
        failures.add_metric(("sign",), failed)
        yield failures
        refusals = CounterMetricFamily("postern_sentry_refusals", "The same by reason", labels=("reason",))
        for reason, count in sorted(service.refused.items()):
            refusals.add_metric((reason,), count)
        yield refusals
        for name, about, end in (
            (
                "dapr_sentry_issuercert_expiry_timestamp",
                "Seconds since 1970 at which the issuer ends",
                authority.issuer.not_after,
            ),
            (
                "postern_sentry_root_expiry_timestamp_seconds",
                "Seconds since 1970 at which the root ends",
                authority.bundle.not_after,
            ),
        ):
            yield GaugeMetricFamily(name, about, value=end.timestamp())
