"""Codes of the lint: one table. A code keeps its meaning for ever; messages may change.

What readers of documents find carries no code of its own: it gets that of the first row whose patterns fit its field and its words.
"""

import re
from typing import Final, Literal

from msgspec import Struct

from policies.errors import Fault

Severity = Literal["error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error")
_ACCESS: Final = r"spec\.accessControl"


class Code(Struct, frozen=True, kw_only=True):
    """One kind of finding. field, words: patterns of what readers find; a code of the lint itself has neither."""

    code: str
    about: str
    field: str = ""
    words: str = ""
    severity: Severity | None = None  # None: error where the document is refused, else warning

    def fits(self, fault: Fault) -> bool:
        """Whether this is what a reader found."""
        has_pattern = bool(self.field or self.words)
        return has_pattern and bool(
            re.match(self.field, fault.field) and re.search(self.words, fault.problem)
        )


CODES: Final = (
    Code(code="PST0002", about="a key that is unknown or misspelt", words=r"^unknown key"),
    Code(
        code="PST0003",
        about="a key that is required is missing",
        words=r"^is missing$|^has no (?:name|action|value|protocol)",
    ),
    Code(
        code="PST0004",
        about="a value of another kind than its key takes",
        words=r"^`[^`]*` is unknown \(expected|^is not (?:a mapping|a list|a boolean|a whole number|text|a number)\b"
        r"|^is a YAML boolean|is out of range \(expected at|^is too short",
    ),
    Code(
        code="PST0005",
        about="a kind that is unknown or missing, or a document too many",
        words=r"has no kind|is a second document|^[A-Za-z]+ is unknown \((?:did you mean|expected Resil)"
        r"|^holds \d+ documents",
    ),
    Code(
        code="PST0006",
        about="a field that Dapr has and that does nothing in postern",
        words=r"(?:has|have) no effect in postern|is read from --config alone",
        severity="info",
    ),
    Code(
        code="PST0007",
        about="an invalid duration, or one without a unit",
        words=r"has no unit and counts|duration",
    ),
    Code(
        code="PST0101",
        about="a path pattern that fits nothing, or other paths than it seems to",
        field=_ACCESS,
        words=r"never fits|braces stand|is cut before judging|stands for exactly one segment|admit everything below",
    ),
    Code(
        code="PST0102",
        about="an access rule that another one keeps from being reached, or that is given twice",
        field=_ACCESS,
        words=r"has no effect: .* comes first|never admits anything|denies here as the more specific"
        r"|matches only `\*` itself|is named again"
        r"|is a second entry|no way leads to it",
    ),
    Code(
        code="PST0103",
        about="access rules that nobody is identified for, as mutual TLS is off",
        field=_ACCESS,
        words=r"mTLS is off",
    ),
    Code(
        code="PST0104",
        about="a caller that no certificate can name",
        field=_ACCESS,
        words=r"fits no caller|expected the caller",
    ),
    Code(code="PST0109", about="another fault in spec.accessControl", field=_ACCESS),
    Code(
        code="PST0111",
        about="a rule of an AccessPolicy that takes the place of another, or is named twice",
        field=r"spec\.(?:rules|default)",
        words=r"takes the place of|is named again|would loosen",
    ),
    Code(
        code="PST0112",
        about="a denial that callers get round by leaving a header or a token out",
        field=r"spec\.rules",
        words=r"is chosen by callers",
    ),
    Code(
        code="PST0119",
        about="another fault in an AccessPolicy",
        field=r"spec\.(?:rules|default|mode|trustDomainAliases|jwt|authorizers)",
    ),
    Code(
        code="PST0201",
        about="a target names a policy that is not there",
        field=r"spec\.targets",
        words=r"^unknown policy",
    ),
    Code(
        code="PST0204",
        about="a trip of a circuit breaker that is not a condition in CEL",
        field=r"spec\.policies\.circuitBreakers\..*trip$",
    ),
    Code(
        code="PST0211",
        about="a Traffic target that does not exist, is named twice, or replaces another",
        field=r"spec\.targets",
        words=r"takes the place of|is named again|is not a target",
    ),
    Code(
        code="PST0219",
        about="another fault in a Traffic",
        field=r"spec\.(?:inbound|targets\.default|targets\.apps\..+\.(?:balancing|concurrency|throttle|outliers|slowStart))",
    ),
    Code(code="PST0209", about="another fault in a Resiliency", field=r"spec\.(?:policies|targets)"),
    Code(code="PST0301", about="a fault in spec.tracing", field=r"spec\.tracing"),
    Code(code="PST0302", about="a fault in spec.metrics", field=r"spec\.metrics?"),
    Code(code="PST0303", about="a fault in spec.api", field=r"spec\.api"),
    Code(
        code="PST0304",
        about="a fault in spec.nameResolution or spec.mtls",
        field=r"spec\.(?:nameResolution|mtls)",
    ),
    Code(
        code="PST0401",
        about="a pipeline or its middleware that can't be used",
        field=r"spec\.(?:httpPipeline|appHttpPipeline|type|version|metadata)|metadata\.name$",
    ),
    Code(code="PST0402", about="a fault in an HTTPEndpoint", field=r"spec\.(?:baseUrl|headers|clientTLS)"),
    Code(
        code="PST0501",
        about="a path in a run file that does not exist",
        words=r"does not exist \(expected a path",
    ),
    Code(
        code="PST0502",
        about="a port or an app ID that two apps of a run file have",
        field=r"apps\[",
        words=r" is also |is given twice",
    ),
    Code(
        code="PST0503",
        about="dependsOn names an unknown app or the app itself, or is circular",
        words=r"^unknown app|dependsOn has a cycle",
    ),
    Code(code="PST0509", about="another fault in a run file", field=r"apps\[|common"),
    Code(code="PST0001", about="a file that is not valid YAML, or not a postern document", field=r"$"),
    Code(code="PST0099", about="any other fault", words=r""),
    # found by the lint alone
    Code(
        code="PST0105",
        about="a caller may do everything but what paths deny: what is added later is open",
        severity="warning",
    ),
    Code(code="PST0202", about="a policy that no target names", severity="warning"),
    Code(
        code="PST0203",
        about="a retry policy that repeats methods which are not idempotent",
        severity="warning",
    ),
    Code(
        code="PST0305",
        about="spans are sampled and exported nowhere, or exported and never sampled",
        severity="warning",
    ),
    Code(
        code="PST0504",
        about="a target of a Resiliency or Traffic that is not an app of the run file",
        severity="warning",
    ),
    Code(
        code="PST0505", about="a caller in access rules that is not an app of the run file", severity="info"
    ),
    Code(
        code="PST0506",
        about="a port in an app's environment that is not the one of its keys",
        severity="warning",
    ),
)
_BY_CODE: Final = {code.code: code for code in CODES}


class Finding(Struct, frozen=True, kw_only=True):
    """What is wrong, where, and how bad."""

    code: str
    severity: Severity
    fault: Fault


def found(code: str, fault: Fault) -> Finding:
    """What the lint itself found."""
    return Finding(code=code, severity=_BY_CODE[code].severity or "error", fault=fault)


def classify(fault: Fault, *, is_warning: bool) -> Finding:
    """What a reader found. A fault that refuses the document is an error, whatever its row says."""
    row = next((code for code in CODES if code.fits(fault)), _BY_CODE["PST0099"])
    severity: Severity = (row.severity or "warning") if is_warning else "error"
    return Finding(code=row.code, severity=severity, fault=fault)
