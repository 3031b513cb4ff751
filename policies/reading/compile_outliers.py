"""What a target of a Traffic document says of endpoints that answer badly -> a rule; every fault at once."""

from msgspec.structs import replace

from policies.reading import own_traffic
from policies.reading.compile_limits import length
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.rules.traffic import OutlierRule

_NONE = frozenset({"0", "0s", "0ms"})


def outliers(
    document: Document,
    target: own_traffic.Target,
    place: Place,
    unsaid: OutlierRule | None,
    findings: Findings,
) -> OutlierRule | None:
    """What a target at `place` says; unsaid: the rule where it says nothing."""
    written, slow_start = target.outliers, target.slow_start
    rule = unsaid
    if written is not None:
        rule = (
            _rule(document, written, (*place, "outliers"), unsaid or OutlierRule(), findings)
            if written.enabled
            else None
        )
    if slow_start is None:
        return rule
    spot: Place = (*place, "slowStart")
    if rule is None:
        problem = (
            "is for endpoints that come back, and outliers are off (expected outliers: {} beside it, or none)"
        )
        findings.fault(document, spot, problem)
        return None
    return replace(
        rule, slow_start_s=0.0 if slow_start in _NONE else length(document, spot, slow_start, findings)
    )


def _rule(
    document: Document, written: own_traffic.Outliers, place: Place, usual: OutlierRule, findings: Findings
) -> OutlierRule:
    rule = replace(
        usual,
        consecutive=written.consecutive_failures,
        rate_endpoints=written.success_rate.endpoints,
        rate_requests=written.success_rate.requests,
        rate_factor=written.success_rate.factor,
        ejection_s=length(document, (*place, "ejection"), written.ejection, findings),
        max_ejection_s=length(document, (*place, "maxEjection"), written.max_ejection, findings),
        max_percent=written.max_ejected_percent,
        interval_s=length(document, (*place, "interval"), written.interval, findings),
    )
    if rule.max_ejection_s < rule.ejection_s:
        problem = f"maxEjection, {written.max_ejection}, is less (expected {written.ejection} or more)"
        findings.fault(document, (*place, "ejection"), problem)
    return rule
