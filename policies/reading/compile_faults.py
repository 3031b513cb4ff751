"""`faults` of targets and of `spec.inbound` in Traffic documents -> rules; every mistake at once."""

import re
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from policies.errors import CodesError
from policies.reading import own_faults, own_schema
from policies.reading.codes import grpc_code
from policies.reading.compile_access_policies import PolicyReader, PolicySet
from policies.reading.compile_limits import length
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.rules.access_policies import Callers, PolicyRules
from policies.rules.faults import FaultKind, FaultRule

FLAG: Final = "--enable-fault-injection"
MAX_FAULTS = 100  # of one list

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KINDS: Final = ("delay", "abort", "unavailable", "reset", "truncate", "bandwidth")
_RESETS: Final[dict[str, FaultKind]] = {"before-head": "reset", "after-head": "reset-late"}


class FaultReader:
    """Reads lists of faults. Mutable state: which calls they are for, as read so far. is_on: whether they are injected at all."""

    def __init__(self, findings: Findings, *, is_on: bool) -> None:
        self._findings = findings
        self._is_on = is_on
        self._set = PolicySet(default_allow=True)

    @property
    def matching(self) -> PolicyRules | None:
        """Says which calls are meant; None where there are no faults."""
        return self._set.rules(None) if self._set.by_name else None

    def read(
        self, document: Document, place: Place, faults: Sequence[own_faults.Fault]
    ) -> tuple[FaultRule, ...]:
        """The faults of one list. Where none is injected, they are checked all the same, and said to have no effect."""
        if len(faults) > MAX_FAULTS:
            self._findings.fault(document, place, f"has too many faults (expected at most {MAX_FAULTS})")
        seen: dict[str, int] = {}
        made: list[FaultRule] = []
        for number, fault in enumerate(faults):
            spot: Place = (*place, number)
            if _NAME.fullmatch(fault.name) is None:
                problem = (
                    f"`{fault.name}` can't be a name (expected up to 64 letters, digits, '.', '_' or '-')"
                )
                self._findings.fault(document, (*spot, "name"), problem)
            elif fault.name in seen:
                line = document.line_of((*place, seen[fault.name]))
                self._findings.fault(
                    document, (*spot, "name"), f"{fault.name} is named again (first on line {line})"
                )
            seen[fault.name] = number
            rule = f"{'.'.join(map(str, place))} {fault.name}"
            self._match(document, spot, fault, rule)
            made.append(self._fault(document, spot, fault, rule))
        if made and not self._is_on:
            names = ", ".join(one.name for one in made)
            text = f"have no effect without {FLAG}: no fault is injected ({names}); start the sidecar with it, or take them out"
            self._findings.warn(document, place, text)
            return ()
        return tuple(made)

    def _match(self, document: Document, place: Place, fault: own_faults.Fault, name: str) -> None:
        """As a denial means callers and paths: those of all namespaces, and paths however an app may read them."""
        callers = fault.from_ if isinstance(fault, own_faults.InboundFault) else own_schema.From()
        rule = own_schema.PolicyRule(name=name, action="deny", from_=callers, to=fault.to)
        reader = PolicyReader(document, "", None, self._findings)
        into = self._set if self._is_on else PolicySet(default_allow=True)
        made = reader.rule(place, rule, "", into)
        made = replace(made, headers=reader.headers(place, fault.when.header, into))
        into.by_name[name] = made
        if not document.has((*place, "from")):
            into.by_name[f"{name} of anybody"] = replace(made, callers=Callers(anonymous=True))

    def _fault(self, document: Document, place: Place, fault: own_faults.Fault, rule: str) -> FaultRule:
        chosen = [kind for kind in _KINDS if getattr(fault, kind) not in (None, False)]
        if len(chosen) != 1:
            said = f"says {' and '.join(chosen)}" if chosen else "does nothing"
            problem = f"{said} (expected one of {', '.join(_KINDS)}; several faults add up)"
            self._findings.fault(document, place, problem)
        made = FaultRule(
            name=fault.name,
            rule=rule,
            kind="unavailable",
            share=fault.percent / 100,
            times=fault.times,
            seed=fault.seed,
        )
        if fault.delay is not None:
            return self._delay(document, (*place, "delay"), fault.delay, made)
        if fault.abort is not None:
            return self._abort(document, (*place, "abort"), fault.abort, made)
        if fault.reset is not None:
            return replace(made, kind=_RESETS[fault.reset])
        if fault.truncate is not None:
            return replace(made, kind="truncate", bytes=fault.truncate)
        if fault.bandwidth is not None:
            return replace(made, kind="bandwidth", bytes=fault.bandwidth)
        return made

    def _abort(
        self, document: Document, place: Place, written: own_faults.Abort, made: FaultRule
    ) -> FaultRule:
        code = None
        if written.status is None and written.grpc is None:
            problem = "has no answer (expected status: 503 for HTTP calls, grpc: UNAVAILABLE for gRPC calls, or both)"
            self._findings.fault(document, place, problem)
        if written.grpc is not None:
            try:
                code = grpc_code(written.grpc)
            except CodesError as error:
                self._findings.fault(document, (*place, "grpc"), str(error))
        return replace(made, kind="abort", status=written.status, code=code)

    def _delay(
        self, document: Document, place: Place, written: own_faults.Between | str, made: FaultRule
    ) -> FaultRule:
        if isinstance(written, str):
            fixed_s = length(document, place, written, self._findings)
            return replace(made, kind="delay", least_s=fixed_s, most_s=fixed_s)
        least_s = length(document, (*place, "min"), written.least, self._findings)
        most_s = length(document, (*place, "max"), written.most, self._findings)
        if least_s > most_s:
            problem = f"{written.least} is above max (expected at most {written.most})"
            self._findings.fault(document, (*place, "min"), problem)
        return replace(made, kind="delay", least_s=least_s, most_s=most_s)
