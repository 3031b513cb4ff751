"""Rules to write: the smallest that would have let a denied call by, and those that recorded calls amount to."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from policies.reading.compile_access_policies import fault_of_template
from policies.rules.path_readings import readings
from proxy.cli.policy.judging import ANONYMOUS, App, Ask, Judged, PolicyFiles

# Segments that name one thing among many: numbers, UUIDs and other long strings of hexadecimal digits.
_ID = re.compile(r"[0-9]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?=.*[0-9])[0-9a-fA-F]{8,}")
_NOT_NAMES = re.compile(r"[^a-z0-9]+")


def advice(found: Judged, files: PolicyFiles) -> Iterator[str]:
    """Lines on what to write, and where; none for a call that is allowed."""
    decision = found.decision
    if decision.allowed:
        return
    if decision.rule:
        yield f"no rule can allow it, as a denial comes first: change {decision.rule}{f' at {found.where}' if found.where else ''}"
        return
    if decision.reason in ("default-app", "default-global"):
        yield "to allow it, make this the first of the operations of its caller's entry in spec.accessControl.policies:"
        yield f"  {json.dumps(_operation(found))}"
    elif decision.reason in ("no-rule", "no-policy"):
        yield f"to allow it, add to the rules of an AccessPolicy for {files.app.app_id}:"
        yield f"  - {json.dumps(rule_for(found, files))}"
        read = readings(found.ask.path.partition("?")[0]) or ()
        if len(read) > 1:
            yield f"each way to read the path must be allowed: {', '.join(read)}"


def _operation(found: Judged) -> dict[str, object]:
    verbs = ["*"] if found.ask.is_grpc else [found.ask.method]
    return {"name": found.ask.path.partition("?")[0], "httpVerb": verbs, "action": "allow"}


def rule_for(found: Judged, files: PolicyFiles) -> dict[str, object]:
    """A rule that allows the call, however its path is read, and as little else as there can be."""
    ask = found.ask
    path = ask.path.partition("?")[0]
    words = f"{ask.caller.rpartition('/')[2]} {'' if ask.is_grpc else ask.method} {path}"
    to: dict[str, object] = {
        "methods": [ask.method],
        "paths": [one for one in readings(path) or () if fault_of_template(one) is None] or [path],
    }
    return {
        "name": _name(words),
        "action": "allow",
        "from": _from(found.peer, files.app),
        "to": _grpc([path]) if ask.is_grpc else to,
    }


def suggest(calls: Iterable[Ask], app: App) -> dict[str, object]:
    """An AccessPolicy that allows these calls: a rule for each caller and verbs, with `{*}` where a path has a number or an id."""
    paths: dict[tuple[str, str], set[str]] = defaultdict(set)
    for ask in calls:
        if ask.is_grpc or (template := _template(ask.path)) is None:
            template = ask.path
        if ask.is_grpc or fault_of_template(template) is None:
            paths[ask.caller, "" if ask.is_grpc else ask.method].add(template)
    by_paths: dict[tuple[str, tuple[str, ...], bool], list[str]] = defaultdict(list)
    for (caller, method), templates in sorted(paths.items()):
        by_paths[caller, tuple(sorted(templates)), not method].append(method)
    rules: list[dict[str, object]] = []
    names: set[str] = set()
    for (caller, some, is_grpc), methods in by_paths.items():
        words = f"{caller.rpartition('/')[2]} {'calls' if is_grpc else ' '.join(methods)}"
        name = next(
            one for number in range(1, len(by_paths) + 2) if (one := _name(words, number)) not in names
        )
        names.add(name)
        to = _grpc(some) if is_grpc else {"methods": methods, "paths": list(some)}
        peer = "" if caller == ANONYMOUS else caller
        rules.append({"name": name, "action": "allow", "from": _from(peer, app), "to": to})
    return {
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": {"name": app.app_id},
        "scopes": [app.app_id],
        "spec": {"mode": "audit", "rules": rules},
    }


def _name(words: str, number: int = 1) -> str:
    made = _NOT_NAMES.sub("-", words.lower()).strip("-")[:60]
    return made if number == 1 else f"{made}-{number}"


def _template(path: str) -> str | None:
    """A clean path with `{*}` for what names one thing among many; None for one that can be read in several ways."""
    path = path.partition("?")[0]
    if len(readings(path) or ()) != 1:
        return None
    return "/".join("{*}" if _ID.fullmatch(segment) else segment for segment in path.split("/"))


def _grpc(paths: Iterable[str]) -> dict[str, object]:
    split = [path.lstrip("/").partition("/") for path in paths]
    services = sorted({service for service, _, _ in split})
    return {"grpc": {"services": services, "methods": sorted({method for _, _, method in split})}}


def _from(peer: str, app: App) -> object:
    if not peer:
        return ANONYMOUS
    domain, _, rest = peer.removeprefix("spiffe://").partition("/ns/")
    namespace, _, name = rest.partition("/")
    made = {"apps": [name]}
    if namespace != app.namespace:
        made["namespaces"] = [namespace]
    if domain != app.trust_domain:
        made["trustDomains"] = [domain]
    return made
