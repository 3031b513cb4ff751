"""`spec.tracing.rules` of a Configuration -> SamplingRules; every fault at once."""

import math
import re
from collections.abc import Sequence

from policies.reading import schema
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings, Spot
from policies.rules.configuration import SamplingRule

#: An app-id, or `app-id.namespace`.
APP = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64})?")
MAX_RULES = 64
MAX_HEADERS = 4  # of one rule
_MAX_VALUES = 16
_MAX_PER_S = 1e6
_RULES: Place = ("spec", "tracing", "rules")
_VERB = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # a token (RFC 9110 §5.6.2)
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "dapr-api-token"})


def compile_rate(document: Document, place: Place, text: str, findings: Findings) -> float | None:
    """A sampling rate, cut to 0 to 1; None, and a fault, where the text is not a number."""
    try:
        rate = float(text)
    except ValueError:
        problem = f"`{text}` is not a sampling rate (expected a number from 0 to 1)"
        findings.fault(document, place, problem, is_lenient=True)
        return None
    return 0.0 if math.isnan(rate) else min(max(rate, 0.0), 1.0)


def compile_rules(
    document: Document, rules: Sequence[schema.TracingRule], findings: Findings
) -> tuple[SamplingRule, ...]:
    """The rules in their order."""
    if len(rules) > MAX_RULES:
        findings.fault(document, _RULES, f"has {len(rules)} rules (expected at most {MAX_RULES})")
        return ()
    return tuple(
        _Reader(document, (*_RULES, number), findings).read(rule) for number, rule in enumerate(rules)
    )


class _Reader:
    """Reads one rule."""

    def __init__(self, document: Document, place: Place, findings: Findings) -> None:
        self._document = document
        self._place = place
        self._findings = findings
        self._spot = Spot(document, findings, place)

    def read(self, rule: schema.TracingRule) -> SamplingRule:
        """The rule, with what of it is wrong told."""
        if rule.target and APP.fullmatch(rule.target) is None:
            self._spot.fault(
                "target",
                f"`{rule.target}` is not a callee (expected an app-id, app-id.namespace or an HTTPEndpoint)",
            )
        if rule.method and (not rule.method.startswith("/") or len(rule.method) > 256):
            self._spot.fault(
                "method",
                f"`{rule.method[:64]}` is not a path template (expected one such as /orders/{{*}} or /shop.Cart/{{**}})",
            )
        if rule.verb and _VERB.fullmatch(rule.verb) is None:
            self._spot.fault("verb", f"`{rule.verb}` is not a verb (expected one such as GET, in upper case)")
        rate = compile_rate(
            self._document, (*self._place, "samplingRate"), rule.sampling_rate, self._findings
        )
        return SamplingRule(
            rate=0.0 if rate is None else rate,
            target=rule.target,
            method=rule.method,
            verb=rule.verb,
            headers=self._headers(rule.header),
            per_s=self._per_s(rule.max_per_second),
        )

    def _per_s(self, text: str) -> float | None:
        if not text:
            return None
        try:
            per_s = float(text)
        except ValueError:
            per_s = math.nan
        if not 0 < per_s <= _MAX_PER_S:
            self._spot.fault("maxPerSecond", f"`{text}` is not a number of traces (expected more than 0)")
        return per_s

    def _headers(self, written: dict[str, list[str]]) -> tuple[tuple[bytes, frozenset[bytes]], ...]:
        if len(written) > MAX_HEADERS:
            self._spot.fault("header", f"names {len(written)} headers (expected at most {MAX_HEADERS})")
        found: dict[bytes, frozenset[bytes]] = {}
        for name, values in written.items():
            if _FIELD.fullmatch(name) is None or name.lower() in _SECRET_HEADERS:
                self._spot.fault(
                    "header",
                    f"`{name}` cannot be asked for (expected the name of a header that holds no secret)",
                )
                continue
            if not 0 < len(values) <= _MAX_VALUES or not all(value.isascii() for value in values):
                self._spot.fault(
                    "header", f"{name} has no values to fit (expected 1 to {_MAX_VALUES}, in ASCII)"
                )
                continue
            found[name.lower().encode()] = frozenset(value.encode() for value in values)
        return tuple(found.items())
