"""`spec.inbound` and the limits of targets in Traffic documents -> rules; every fault at once."""

import re

from msgspec.structs import replace

from policies.errors import DurationError
from policies.reading import own_inbound, own_schema
from policies.reading.compile_access_policies import PolicyReader, PolicySet
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.durations import is_bare, parse_duration
from policies.reading.findings import Findings
from policies.rules.access_policies import Callers
from policies.rules.limits import ConcurrencyRule, LagRule, Limits, RateRule, ThrottleRule
from policies.rules.written import Written

MAX_RATES = 1_000  # of one sidecar

_INBOUND: Place = ("spec", "inbound")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class InboundLimits:
    """Those of the documents in force. Mutable state: what was read so far, and where it is written."""

    def __init__(self) -> None:
        self._set = PolicySet(default_allow=True)
        self._rates: dict[str, RateRule] = {}
        #: Where each is written: `rate:<name>`, `connections`, `concurrency`, `lag`.
        self.written: dict[str, Written] = {}
        self._connections: int | None = None
        self._concurrency: ConcurrencyRule | None = None
        self._lag: LagRule | None = None

    def read(self, document: Document, inbound: own_inbound.Inbound, owner: str, findings: Findings) -> None:
        """Add those of one more document. A later one takes the place of an earlier one of the same kind, or rate of the same name."""
        for number, rate in enumerate(inbound.rates):
            self._rate(document, number, rate, owner, findings)
        if len(self._rates) > MAX_RATES:
            findings.fault(
                document, (*_INBOUND, "rates"), f"has too many rates (expected at most {MAX_RATES})"
            )
        for key in ("connections", "concurrency", "lag"):
            if getattr(inbound, key) is not None:
                self._place(document, (*_INBOUND, key), (key, ""), owner, findings)
        if inbound.connections is not None:
            self._connections = inbound.connections.per_caller
        if inbound.concurrency is not None:
            place: Place = (*_INBOUND, "concurrency")
            self._concurrency = concurrency(document, place, inbound.concurrency, findings)
        if inbound.lag is not None:
            place = (*_INBOUND, "lag")
            self._lag = LagRule(
                above_s=length(document, (*place, "above"), inbound.lag.above, findings),
                for_s=length(document, (*place, "for"), inbound.lag.for_, findings),
            )

    def limits(self) -> Limits:
        """All of them."""
        return Limits(
            rates=self._rates,
            matching=self._set.rules(None) if self._rates else None,
            connections=self._connections,
            concurrency=self._concurrency,
            lag=self._lag,
        )

    def _rate(
        self, document: Document, number: int, rate: own_inbound.Rate, owner: str, findings: Findings
    ) -> None:
        place: Place = (*_INBOUND, "rates", number)
        if _NAME.fullmatch(rate.name) is None:
            problem = f"`{rate.name}` can't be a name (expected up to 128 letters, digits, '.', '_' or '-')"
            findings.fault(document, (*place, "name"), problem)
        self._place(document, (*place, "name"), ("rates", rate.name), owner, findings)
        per_s = length(document, (*place, "per"), rate.per, findings)
        self._rates[rate.name] = RateRule(
            name=rate.name,
            requests=rate.requests,
            per_s=per_s,
            burst=rate.burst or rate.requests,
            is_shared=rate.each == "all",
        )
        # As a denial means them: callers of all namespaces, and paths however an app may read them.
        rule = own_schema.PolicyRule(name=rate.name, action="deny", from_=rate.from_, to=rate.to)
        reader = PolicyReader(document, "", None, findings)
        made = reader.rule(place, rule, owner, self._set)
        self._set.by_name[rate.name] = made
        anybody = f"{rate.name} of anybody"  # no name has a space
        self._set.by_name.pop(anybody, None)
        if not document.has((*place, "from")):
            self._set.by_name[anybody] = replace(made, callers=Callers(anonymous=True))

    def _place(
        self, document: Document, place: Place, what: tuple[str, str], owner: str, findings: Findings
    ) -> None:
        """Remember where something is written, and say whose place it takes."""
        kind, name = what
        key = f"rate:{name}" if name else kind
        home = f"{document.path}:{document.line_of(place)}"
        if key in self.written:
            called = f"the rate {name}" if name else kind
            findings.warn(document, place, f"takes the place of {called} at {self.written[key].at}")
        self.written[key] = Written(policy=f"inbound.{kind}", name=name, resource=owner, at=home)


def concurrency(
    document: Document, place: Place, written: own_inbound.Concurrency, findings: Findings
) -> ConcurrencyRule:
    """`concurrency`, of calls to the app or of a target."""
    rule = ConcurrencyRule(
        limit=written.limit if isinstance(written.limit, int) else None,
        least=written.min_limit or ConcurrencyRule(limit=None).least,
        most=written.max_limit or ConcurrencyRule(limit=None).most,
        queue=written.queue,
        wait_s=length(document, (*place, "queueTimeout"), written.queue_timeout, findings),
    )
    for key, number in (("minLimit", written.min_limit), ("maxLimit", written.max_limit)):
        if number is not None and rule.limit is not None:
            problem = "is for `limit: adaptive` alone (expected none beside a number)"
            findings.fault(document, (*place, key), problem)
    if rule.limit is None and rule.least > rule.most:
        problem = f"{rule.least} is above maxLimit (expected at most {rule.most})"
        findings.fault(document, (*place, "minLimit"), problem)
    return rule


def throttle(
    document: Document, place: Place, written: own_inbound.Throttle, findings: Findings
) -> ThrottleRule:
    """`throttle` of a target."""
    window_s = length(document, (*place, "window"), written.window, findings)
    return ThrottleRule(ratio=float(written.ratio), window_s=window_s)


def length(document: Document, place: Place, text: str, findings: Findings) -> float:
    """Seconds of a duration that is longer than nothing and no longer than a day."""
    try:
        found = parse_duration(text)
    except DurationError as error:
        findings.fault(document, place, str(error))
        return 1.0
    if is_bare(text):
        findings.fault(document, place, f"`{text}` has no unit (write {text}ms, or {text}s for seconds)")
    elif not 0.001 <= found <= 86_400:
        findings.fault(document, place, f"`{text}` is out of range (expected 1ms to 24h)")
    return max(found, 0.001)
