"""The table of access decisions, row by row: Dapr's policies, and what they decide here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from policies.errors import DocumentError
from policies.rules.caller import Caller
from tests.unit.policies.writing import OWN, A, acl, asker, configuration, entry, loaded, op

APP2 = Caller(trust_domain="public", namespace="default", app_id="app2")
OTHER_DOMAIN = Caller(trust_domain="td1", namespace="default", app_id="app1")
OTHER_NAMESPACE = Caller(trust_domain="public", namespace="ns2", app_id="app1")

ROW_9 = acl(entry(op("/op1", "allow", "*"), d="deny"), g="deny")
ROW_26 = acl(entry(op("/admin", "deny", "*"), d="allow"), g="allow")
ROW_46 = acl(entry(op("/op1", "deny", "POST")), g="allow")


def single(*operations: dict[str, object], d: str = "deny") -> str:
    return acl(entry(*operations, d=d), g="deny")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: the requests that pass and those that don't, each `VERB path`; a lint is part of a warning."""

    number: str
    texts: tuple[str, ...]
    caller: Caller | None = A
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    app: Literal["http", "grpc"] = "http"
    lint: str = ""
    mtls: bool = True


def row(number: str, *texts: str, **rest: object) -> Row:
    return Row(number=number, texts=texts, **rest)  # type: ignore[arg-type]


ROWS = [
    row("1", configuration({}), allowed=("GET /x",)),
    row("1 empty", acl(), allowed=("GET /x",)),
    row("3", acl(entry(d="allow")), caller=APP2, denied=("GET /x",), lint="without a defaultAction deny"),
    row("3 app1", acl(entry(d="allow")), allowed=("GET /x",)),
    row("4", acl(entry(d="allow"), g=""), caller=APP2, denied=("GET /x",)),
    row(
        "5 without policies",
        configuration({"accessControl": {"defaultAction": "", "trustDomain": "td"}}),
        denied=("GET /x",),
    ),
    row("7 allow", acl(g="ALLOW"), allowed=("GET /x",)),
    row("7 deny", acl(g="deny"), denied=("GET /x",)),
    row("8 deny", acl(g="deny"), caller=None, denied=("GET /x",)),
    row("8 allow", acl(g="allow"), caller=None, allowed=("GET /x",), mtls=False, lint="prove no identity"),
    row(
        "8 policies",
        acl(entry(d="allow"), g="deny"),
        caller=None,
        denied=("GET /x",),
        mtls=False,
        lint="never apply",
    ),
    row("9", ROW_9, allowed=("GET /op1", "GET /op1/", "POST /op1", "FOO /op1")),
    row("10", ROW_9, allowed=("GET /OP1",)),
    row("11", ROW_9, allowed=("GET /op1/sub/deep",), lint="everything below"),
    row("12", ROW_9, denied=("GET /op10", "GET /op", "GET /op2", "GET /")),
    row("13", ROW_9, denied=("GET /op1;x=1",)),
    row(
        "14",
        ROW_9,
        denied=(
            "GET /op1?x=1",
            "GET /op1#f",
            "GET /op1\0",
            "GET op1",
            "GET //op1",
            "GET /x/../op1",
            "GET /op1%00",
        ),
    ),
    row("15 trust domain", ROW_9, caller=OTHER_DOMAIN, denied=("GET /op1",)),
    row("15 namespace", ROW_9, caller=OTHER_NAMESPACE, denied=("GET /op1",)),
    row("15 app", ROW_9, caller=APP2, denied=("GET /op1",)),
    row("18", ROW_9, denied=("NONE /op1", " /op1")),
    row("19", ROW_9, app="grpc", allowed=(" /op1",), denied=(" /OP1",)),
    row("20", acl(entry(app="App1", d="allow"), g="deny"), denied=("GET /x",)),
    row(
        "21",
        single(op("/op1", "allow", "POST", "PUT")),
        allowed=("POST /op1", "PUT /op1"),
        denied=("GET /op1", "HEAD /op1", "post /op1", "FOO /op1"),
    ),
    row("22", single(op("/op1", "allow", "POST", "PUT")), app="grpc", allowed=("GET /op1", " /op1")),
    row("24", single(op("/op1", "allow")), denied=("POST /op1",), lint="an allow admits nothing"),
    row("24 grpc", single(op("/op1", "allow")), app="grpc", allowed=(" /op1",)),
    row("26", ROW_26, allowed=("GET /x",), denied=("GET /admin", "GET /Admin", "GET /admin/x")),
    row(
        "27",
        ROW_26,
        allowed=("GET /x%2Fy", "GET /x%252Fy", "GET /x%23%3Fy", "GET /100%25"),
        denied=("GET /%61dmin", "GET /%2561dmin", "GET /x%2F..%2Fadmin", "GET /100%25ab", "GET /x%FF"),
    ),
    row("28", ROW_26, denied=("GET /admin;x=1", "GET /a\\..\\admin", "GET /;x/admin", "GET /a/..;/admin")),
    row(
        "28 path parameters",
        acl(entry(op("/item/*", "deny", "*"), d="allow"), g="allow"),
        allowed=("GET /item/7/y", "GET /item/7/y;x", "GET /items;x"),
        denied=("GET /item/7;x", "GET /item/7;x/y", "GET /item/7;/y/z", "GET /item;x/7"),
    ),
    row("30", ROW_26, allowed=("GET /adm\u0131n",), denied=("GET /ADM\u0130N",)),
    row("30 allow", single(op("/kick", "allow", "*")), allowed=("GET /KICK",), denied=("GET /\u212aick",)),
    row(
        "31",
        acl(entry(op("/pkg.Svc/Method", "deny"), d="allow"), g="allow"),
        app="grpc",
        allowed=(" /pkg.svc/Method",),
        denied=(" /pkg.Svc/Method",),
    ),
    row(
        "32",
        single(op("/op1/*", "allow", "*")),
        allowed=("GET /op1", "GET /op1/a"),
        denied=("GET /op1/a/b", "GET /op1x"),
    ),
    row(
        "33",
        single(op("/op1/**", "allow", "*")),
        allowed=("GET /op1", "GET /op1/a", "GET /op1/a/b"),
        denied=("GET /op1x",),
    ),
    row(
        "34",
        single(op("/op1/**/a", "allow", "*")),
        allowed=("GET /op1/x/a", "GET /op1/x/a/z"),
        denied=("GET /op1/a", "GET /op1/x/y/a"),
        lint="exactly one segment",
    ),
    row(
        "36",
        single(op("/op*", "allow", "*")),
        allowed=("GET /op", "GET /op1", "GET /op1/a/b"),
        denied=("GET /xop",),
    ),
    row(
        "37",
        single(op("/a*c", "allow", "*")),
        allowed=("GET /ac", "GET /abc", "GET /ac/d"),
        denied=("GET /abcd", "GET /a/c"),
    ),
    row("38", single(op("/*", "allow", "*")), allowed=("GET /", "GET /a"), denied=("GET /a/b",)),
    row("38 bare", single(op("*", "allow", "*")), allowed=("GET /", "GET /a"), denied=("GET /a/b",)),
    row(
        "39",
        single(op("/**", "allow", "*"), op("/admin", "deny", "*"), d="allow"),
        allowed=("GET /x",),
        denied=("GET /admin", "GET /admin/x"),
        lint="to Dapr /** on line",
    ),
    row(
        "40",
        single(op("/admin", "deny", "*"), op("/**", "allow", "*"), d="allow"),
        allowed=("GET /x/admin",),
        denied=("GET /admin", "GET /admin/x"),
    ),
    row(
        "42",
        single(op("/a*/x", "allow", "*"), op("/ab/y", "allow", "*")),
        allowed=("GET /ab/x",),
        denied=("GET /ab/y",),
        lint="never admits anything",
    ),
    *(
        row(
            f"43 {name}",
            single(*operations),
            allowed=("GET /a", "GET /a/c"),
            denied=("GET /a/b", "GET /a/b/c"),
            lint="denies here as the more specific rule",
        )
        for name, operations in {
            "allow first": (op("/a", "allow", "*"), op("/a/b", "deny", "*")),
            "deny first": (op("/a/b", "deny", "*"), op("/a", "allow", "*")),
        }.items()
    ),
    row(
        "44",
        single(op("/a/b", "deny", "*"), op("/a/**", "allow", "*")),
        allowed=("GET /a/c/d", "GET /a"),
        denied=("GET /a/b", "GET /a/b/c"),
    ),
    row(
        "45",
        single(op("/a/*/c", "allow", "*"), op("/a/**", "allow", "*")),
        allowed=("GET /a/b/c",),
        denied=("GET /a/b",),
        lint="has no effect",
    ),
    row("46", ROW_46, allowed=("GET /op1",), denied=("POST /op1",)),
    row("47", ROW_46, denied=("NONE /op1", "NONE /op2")),
    row(
        "49",
        acl(entry(d="deny", td="td1"), entry(d="allow"), g="allow"),
        caller=OTHER_DOMAIN,
        denied=("GET /x",),
    ),
    row(
        "50 app", acl(entry(app="*", d="allow"), g="deny"), denied=("GET /x",), lint="is not a wildcard here"
    ),
    row("50 td", acl(entry(td="*", d="allow"), g="deny"), denied=("GET /x",), lint="is not a wildcard here"),
    row("50 ns", acl(entry(ns="*", d="allow"), g="deny"), denied=("GET /x",), lint="is not a wildcard here"),
    row("52 A", acl(entry(d="allow"), g="deny"), acl(entry(app="app2", d="allow")), denied=("GET /x",)),
    row(
        "52 app2",
        acl(entry(d="allow"), g="deny"),
        acl(entry(app="app2", d="allow")),
        caller=APP2,
        allowed=("GET /x",),
    ),
    row(
        "56 escaped",
        single(op("/$$metadata", "allow", "*")),
        allowed=("POST /$metadata",),
        denied=("POST /",),
    ),
    row(
        "57",
        single(op("/orders/{id}", "allow", "GET")),
        allowed=("GET /orders/{id}",),
        denied=("GET /orders/1",),
        lint="braces stand for themselves",
    ),
    row("58", single(op("/op1/", "allow", "*")), denied=("GET /op1", "GET /op1/"), lint="never fits"),
    row(
        "59",
        single(op("/pkg.Svc/**", "allow")),
        app="grpc",
        allowed=(" /pkg.Svc/M",),
        denied=(" /pkg.Svc2/M",),
    ),
    row("59 glob", single(op("/pkg.*", "allow")), app="grpc", allowed=(" /pkg.Svc/M", " /pkg.Svc2/M")),
    row("60", acl(entry(d="deny"), g="deny"), caller=OWN, allowed=("GET /x",)),
    row("60 named", acl(entry(app=OWN.app_id, d="deny"), g="allow"), caller=OWN, denied=("GET /x",)),
]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: f"row {case.number}")
def test_policy_of_the_table_decides_as_its_row_says(case: Row, tmp_path: Path) -> None:
    is_grpc = case.app == "grpc"
    snapshot = loaded(tmp_path, *case.texts, is_grpc=is_grpc, mtls=case.mtls)
    ask = asker(snapshot, is_grpc=is_grpc)
    requests = [(request, True) for request in case.allowed] + [(request, False) for request in case.denied]
    for request, expected in requests:
        verb, _, path = request.partition(" ")
        decision = ask(case.caller, verb, path)
        assert decision.allowed is expected, (request, decision)
    if case.lint:
        assert case.lint in "\n".join(snapshot.warnings)


BROKEN = [
    ("2", (configuration({"accessControl": None}),), "accessControl: has no value", False),
    (
        "5 with policies",
        (configuration({"accessControl": {"defaultAction": "", "trustDomain": "td", "policies": []}}),),
        "defaultAction: is empty",
        False,
    ),
    ("6", (acl(g="alow"),), "`alow` is not an action", True),
    ("23", (single(op("/op1", "allow", "post")),), "`post` is not a verb", True),
    ("25", (single(op("/op1", None, "*")),), "has no action", True),
    ("35", (single(op("/op1/*/a", "allow", "*")),), "matches only `*` itself", True),
    (
        "41",
        (single(op("/op", "allow", "GET"), op("/op", "allow", "POST")),),
        "is named again",
        True,
    ),
    ("48", (acl(entry(d="allow"), entry(d="deny"), g="deny"),), "second entry for app1", True),
    (
        "51 trust domain",
        (configuration({"accessControl": {"policies": [{"appId": "a", "namespace": "n"}]}}),),
        "trustDomain: is missing",
        False,
    ),
    (
        "51 key app",
        (
            configuration(
                {"accessControl": {"policies": [{"app": "a", "trustDomain": "t", "namespace": "n"}]}}
            ),
        ),
        "unknown key (did you mean appId?)",
        False,
    ),
    ("51 empty", (acl(entry(ns="", d="allow")),), "namespace: is empty", False),
    ("53", (acl(g="deny"), configuration({"accessControl": None})), "config2.yaml", False),
    ("54", (configuration({}) + "\n---\n" + acl(g="deny"),), "second document", False),
    (
        "55",
        (configuration({"accessControl": {"defaultaction": "deny"}}),),
        "did you mean defaultAction?",
        False,
    ),
    ("56", (single(op("/$metadata", "allow", "*")),), "variable metadata is not set", False),
    (
        "httpVerb a text",
        (single({"name": "/a", "httpVerb": "GET", "action": "allow"}),),
        "httpVerb: is not a list",
        False,
    ),
]


@pytest.mark.parametrize(
    ("texts", "part", "is_forgiven"), [b[1:] for b in BROKEN], ids=[f"row {b[0]}" for b in BROKEN]
)
def test_policy_of_the_table_that_misleads_is_refused_with_its_line(
    texts: tuple[str, ...],
    part: str,
    is_forgiven: bool,
    tmp_path: Path,
) -> None:
    with pytest.raises(DocumentError) as caught:
        loaded(tmp_path, *texts)
    assert part in str(caught.value)
    assert all(fault.line for fault in caught.value.faults)
    if is_forgiven:
        assert re.search(
            "forgiven by --config-lenient", "\n".join(loaded(tmp_path, *texts, lenient=True).warnings)
        )
    else:
        with pytest.raises(DocumentError):
            loaded(tmp_path, *texts, lenient=True)


@pytest.mark.parametrize(
    ("text", "allowed", "denied"),
    [
        (acl(g="alow"), (), ("GET /x",)),
        (single(op("/op1", "allow", "post")), (), ("POST /op1", "post /op1")),
        (single(op("/op1", None, "*")), (), ("GET /op1",)),
        (single(op("/op1/*/a", "allow", "*")), ("GET /op1/*/a",), ("GET /op1/x/a",)),
        (single(op("/op", "allow", "GET"), op("/op", "allow", "POST")), ("GET /op",), ("POST /op",)),
        (acl(entry(d="allow"), entry(d="deny"), g="deny"), (), ("GET /x",)),
    ],
    ids=["row 6", "row 23", "row 25", "row 35", "row 41", "row 48"],
)
def test_lenient_load_gives_daprs_answer(
    text: str,
    allowed: tuple[str, ...],
    denied: tuple[str, ...],
    tmp_path: Path,
) -> None:
    ask = asker(loaded(tmp_path, text, lenient=True))
    assert [ask(A, *request.split(" ")).allowed for request in (*allowed, *denied)] == [True] * len(
        allowed
    ) + [
        False,
    ] * len(denied)
