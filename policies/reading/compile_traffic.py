"""Traffic documents -> TrafficRules; every fault at once. None is lenient: what is left out would be without the limit that was meant."""

import re
from collections.abc import Sequence

from msgspec import Struct, field

from policies.reading import own_faults, own_traffic
from policies.reading.compile_faults import FaultReader
from policies.reading.compile_limits import InboundLimits, concurrency, throttle
from policies.reading.compile_outliers import outliers
from policies.reading.compile_retries import RetryReader
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.rules.faults import FaultRule, InboundFaults
from policies.rules.traffic import BalancingRule, TargetTraffic, TrafficRules
from policies.rules.written import Written

_TARGETS: Place = ("spec", "targets")
_APP = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64})?")  # as calls may name one
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2

Documents = Sequence[tuple[Document, own_traffic.Traffic]]


class _Merged(Struct):
    """What the documents in force say; homes: where each entry is written."""

    of_targets: FaultReader
    of_inbound: FaultReader
    targets: dict[str, TargetTraffic] = field(default_factory=dict)
    default: TargetTraffic = field(default_factory=TargetTraffic)
    homes: dict[str, Written] = field(default_factory=dict)
    inbound: InboundLimits = field(default_factory=InboundLimits)
    faults: dict[str, FaultRule] = field(default_factory=dict)


def compile_traffic(
    documents: Documents,
    *,
    own_app_id: str,
    own_namespace: str,
    unsaid: TargetTraffic,
    injects_faults: bool = True,
    findings: Findings,
) -> TrafficRules:
    """The rules of documents in load order. Those scoped to other apps are checked and left out.

    unsaid: what holds where nothing is said. injects_faults: else faults are checked, and left out with a warning.
    """

    def none(*, is_on: bool) -> _Merged:
        of_targets, of_inbound = FaultReader(findings, is_on=is_on), FaultReader(findings, is_on=is_on)
        return _Merged(of_targets, of_inbound, default=unsaid)

    merged = none(is_on=injects_faults)
    for document, traffic in documents:
        is_ours = not traffic.scopes or own_app_id in traffic.scopes
        # One that is not in force here is checked all the same: it is in another sidecar, or will be.
        into = merged if is_ours else none(is_on=True)
        reader = _Reader(document, own_namespace, unsaid, findings, into, traffic.metadata.name)
        reader.read(traffic.spec.targets)
        reader.read_faults(traffic.spec.inbound.faults)
        into.inbound.read(document, traffic.spec.inbound, traffic.metadata.name, findings)
    return TrafficRules(
        targets=merged.targets,
        default=merged.default,
        inbound=merged.inbound.limits(),
        written=merged.homes,
        inbound_written=merged.inbound.written,
        matching=merged.of_targets.matching,
        inbound_faults=InboundFaults(
            rules=tuple(merged.faults.values()), matching=merged.of_inbound.matching
        ),
    )


class _Reader:
    """Reads one document's entries. A later document's takes the place of an earlier one's, whole."""

    def __init__(  # noqa: PLR0917 - one after the other, as they are read
        self,
        document: Document,
        own_namespace: str,
        unsaid: TargetTraffic,
        findings: Findings,
        into: _Merged,
        resource: str,
    ) -> None:
        self._resource = resource
        self._document = document
        self._namespace = own_namespace
        self._unsaid = unsaid
        self._findings = findings
        self._into = into

    def read(self, targets: own_traffic.Targets) -> None:
        """Adds `spec.targets` to those before it."""
        if targets.default is not None:
            place: Place = (*_TARGETS, "default")
            self._place("the default", "", place)
            self._into.default = self._target(targets.default, place)
        own: dict[str, str] = {}
        for name, target in targets.apps.items():
            place = (*_TARGETS, "apps", name)
            if _APP.fullmatch(name) is None:
                problem = f"`{name}` is not a target (expected an app-id, or app-id.namespace)"
                self._findings.fault(self._document, place, problem)
                continue
            full = name if "." in name else f"{name}.{self._namespace}"
            if full in own:
                problem = f"{name} is named again (first as {own[full]})"
                self._findings.fault(self._document, place, problem)
            else:
                self._place(name, full, place)
            own[full] = name
            self._into.targets[full] = self._target(target, place)

    def read_faults(self, faults: Sequence[own_faults.Fault]) -> None:
        """Adds those of calls to the app; one takes the place of an earlier one of its name."""
        place: Place = ("spec", "inbound", "faults")
        for rule in self._into.of_inbound.read(self._document, place, faults):
            if rule.name in self._into.faults:
                text = f"takes the place of the fault {rule.name} of an earlier Traffic"
                self._findings.warn(self._document, place, text)
            self._into.faults[rule.name] = rule

    def _place(self, name: str, full: str, place: Place) -> None:
        """Remember where an entry is written, and say whose place it takes."""
        homes = self._into.homes
        if full in homes:
            text = f"takes the place of what {homes[full].at} says of {name}"
            self._findings.warn(self._document, place, text)
        homes[full] = Written(
            policy=".".join(map(str, place[1:])) if not full else "targets.apps",
            name=name if full else "",
            resource=self._resource,
            at=f"{self._document.path}:{self._document.line_of(place)}",
        )

    def _target(self, target: own_traffic.Target, place: Place) -> TargetTraffic:
        document, findings = self._document, self._findings
        limit, throttle_ = target.concurrency, target.throttle
        return TargetTraffic(
            balancing=self._balancing(target.balancing, (*place, "balancing")),
            concurrency=None
            if limit is None
            else concurrency(document, (*place, "concurrency"), limit, findings),
            throttle=None
            if throttle_ is None
            else throttle(document, (*place, "throttle"), throttle_, findings),
            retries=RetryReader(document, findings).read(target, place),
            outliers=outliers(document, target, place, self._unsaid.outliers, findings),
            faults=self._into.of_targets.read(document, (*place, "faults"), target.faults),
            source=".".join(map(str, place[1:])),
        )

    def _balancing(self, written: own_traffic.Balancing, place: Place) -> BalancingRule:
        spot: Place = (*place, "hash")
        if written.hash is None:
            if written.policy == "ring-hash":
                problem = "is missing (expected header: NAME, or caller: true, beside ring-hash)"
                self._findings.fault(self._document, spot, problem)
            return BalancingRule(policy=written.policy)
        if written.policy != "ring-hash":
            problem = f"is for ring-hash alone (expected none beside {written.policy})"
            self._findings.fault(self._document, spot, problem)
        header = written.hash.header
        if (header is not None) == written.hash.caller:
            self._findings.fault(
                self._document, spot, "needs one key (expected header: NAME, or caller: true)"
            )
        if header is not None and _FIELD.fullmatch(header) is None:
            self._findings.fault(
                self._document, (*spot, "header"), f"`{header}` is not a header (expected a name)"
            )
        return BalancingRule(policy=written.policy, header=(header or "").lower())
