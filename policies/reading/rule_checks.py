"""Rules that don't do what their author must have meant: faults and warnings about patterns and their order.

A fault where the author's intent is silently lost; a warning where the decision is the intended one, or a stricter one.
"""

import re
from collections.abc import Sequence

from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.rules.access import KNOWN_VERBS, Rule
from policies.rules.matcher import PathTable

_ANY = "\uffff"  # a segment, or part of one, that no pattern is likely to spell out
_NEVER = re.compile(r"[\x00-\x1f\x7f?#\\]|%[0-9A-Fa-f]{2}|//|/\.\.?(?:/|\Z)")


def check_pattern(document: Document, place: Place, rule: Rule, findings: Findings) -> None:
    """Patterns that fit no path at all, or fewer than they seem to."""
    pattern, segments = rule.pattern, rule.pattern.split("/")[1:]
    never = ""
    if pattern.endswith("/") and pattern != "/":
        never = "never fits, since paths lose their last / (leave it out)"
    elif _NEVER.search(pattern) is not None:
        never = "never fits as meant (write the path decoded and clean, without ?, #, \\, // or ..)"
    elif "{" in pattern and "}" in pattern:
        never = "braces stand for themselves (write * for one segment)"
    if never and not rule.is_allow:
        findings.fault(document, place, f"{pattern} {never}")
    elif never:
        findings.warn(document, place, f"{pattern} {never}")
    if ";" in pattern:
        findings.warn(document, place, f"{pattern}: what follows `;` in a segment is cut before judging")
    if "**" in segments[:-1]:
        findings.warn(document, place, f"{pattern}: ** before the end stands for exactly one segment")


def check_reach(
    document: Document,
    place: Place,
    rules: Sequence[Rule],
    table: PathTable,
    *,
    is_default_allow: bool,
    findings: Findings,
) -> None:
    """Rules that another one keeps from being reached in the ordered reading; `place` is that of the list."""
    seen: set[str] = set()
    wide: list[str] = []
    for number, rule in enumerate(rules):
        segments = rule.pattern.split("/")[1:]
        name = rule.pattern.lower() if table.fold_case else rule.pattern
        if name in seen or _NEVER.search(rule.pattern) or (rule.pattern.endswith("/") and segments != [""]):
            continue
        seen.add(name)
        if rule.is_allow and "*" not in segments[-1] and segments != [""]:
            wide.append(rule.pattern)
        walked = table.first_fit("/" + "/".join(_probe(segment) for segment in segments))
        if walked != number:
            line = document.line_of((*place, walked)) if walked >= 0 else 0
            first = (
                f"{rules[walked].pattern} on line {line} comes first" if walked >= 0 else "no way leads to it"
            )
            verdicts = _verdicts(
                rule, rules[walked] if walked >= 0 else None, is_default_allow, table.fold_case
            )
            spot: Place = (*place, number, "name")
            _tell_unreached(
                document, spot, rule, first, is_same=verdicts == {rule.is_allow}, findings=findings
            )
    if wide:
        findings.warn(document, place, f"allows for {_some(wide)} also admit everything below")


def _verdicts(rule: Rule, met: Rule | None, is_default_allow: bool, judges_verbs: bool) -> set[bool]:
    """What the ordered reading says, over the verbs of `rule`, when it meets `met` in its place."""
    if met is None:
        return {is_default_allow}
    if not judges_verbs:
        return {met.is_allow}
    verbs = KNOWN_VERBS if "*" in rule.verbs or not rule.verbs else rule.verbs
    return {met.is_allow if verb in met.verbs or "*" in met.verbs else is_default_allow for verb in verbs}


def _tell_unreached(
    document: Document,
    place: Place,
    rule: Rule,
    first: str,
    *,
    is_same: bool,
    findings: Findings,
) -> None:
    if is_same:
        findings.warn(document, place, f"{rule.pattern} has no effect: {first}, with the same outcome")
    elif "*" in rule.pattern.split("/")[1:-1]:
        problem = f"{rule.pattern}: * before the end matches only `*` itself (write ** for any one segment)"
        findings.fault(document, place, problem, is_lenient=rule.is_allow)
    elif not rule.is_allow:
        text = f"{rule.pattern} denies here as the more specific rule, though to Dapr {first}"
        findings.warn(document, place, text)
    elif first.startswith("/"):
        problem = f"{rule.pattern} never admits anything: {first} (expected no wider rule beside it)"
        findings.fault(document, place, problem, is_lenient=True)
    else:
        findings.warn(
            document, place, f"{rule.pattern} never admits anything: an earlier pattern takes its paths"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _probe(segment: str) -> str:
    return _ANY if segment in {"*", "**"} else segment.replace("*", _ANY)
