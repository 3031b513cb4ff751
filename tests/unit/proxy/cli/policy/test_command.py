"""`postern policy`: what policies in files decide, and what is told of it."""

import json
from pathlib import Path

import pytest

from proxy.cli.app import main

ORDERS = """apiVersion: postern.dev/v1alpha1
kind: AccessPolicy
metadata: {name: orders}
scopes: [orders]
spec:
  rules:
  - {name: reads, action: allow, from: {apps: [web]}, to: {methods: [GET], paths: ["/orders/{*}"]}}
  - {name: place, action: allow, from: {apps: [cart]}, to: {grpc: {services: [shop.Orders], methods: [Place]}}}
  - {name: nightly, action: allow, from: {apps: ["*-job"]}, when: {header: {x-run: [nightly]}}}
  - {name: no-admin, action: deny, to: {paths: ["/admin/{**}"]}}
"""
ENTRY = """kind: Configuration
spec:
  accessControl:
    defaultAction: deny
    policies:
    - appId: web
      trustDomain: public
      namespace: default
      defaultAction: deny
      operations:
      - {name: /orders/*, httpVerb: [GET], action: allow}
      - {name: /orders/x, httpVerb: ["*"], action: deny}
"""
LOG = (
    {"peer": "spiffe://public/ns/default/web", "verb": "GET", "path": "/orders/17", "protocol": "http"},
    {"peer": "spiffe://public/ns/default/web", "verb": "GET", "path": "/orders/18", "protocol": "http"},
    {"peer": "spiffe://public/ns/far/cart", "verb": "POST", "path": "/shop.Orders/Place", "protocol": "grpc"},
    {"peer": "", "verb": "GET", "path": "/healthz", "protocol": "http"},
    {
        "peer": "spiffe://public/ns/default/bad",
        "verb": "GET",
        "path": "/x",
        "protocol": "http",
        "cause": "denied",
    },
    {"direction": "outbound", "peer": "", "verb": "GET", "path": "/not-ours", "protocol": "http"},
)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("orders.yaml").write_text(ORDERS)
    Path("entry.yaml").write_text(ENTRY)
    lines = ({"direction": "inbound", "dst": "orders", **line} for line in LOG)
    Path("log.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def explained(
    capsys: pytest.CaptureFixture[str], *asked: str, files: str = "orders.yaml"
) -> tuple[int, list[str]]:
    code = main(["policy", "explain", files, "--app", "orders", *asked])
    told = capsys.readouterr()
    return code, (told.out + told.err).splitlines()


def test_allowing_rule_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(capsys, "--from", "web", "--path", "/orders/1") == (
        0,
        ["GET /orders/1 from web to orders: allowed by rule reads of orders (orders.yaml:7)"],
    )
    assert explained(capsys, "--from", "cart", "--grpc", "/shop.Orders/Place")[0] == 0
    assert explained(capsys, "--from", "a-job", "-H", "x-run: nightly")[0] == 0
    assert explained(capsys, "--from", "a-job", "-H", "x-run: daily")[0] == 1
    assert explained(capsys, "--from", "orders")[0] == 0


def test_rates_that_a_call_must_pass_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("limits.yaml").write_text(
        "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: x}\nspec:\n  inbound:\n    rates:\n"
        "    - {name: reads, requests: 5, per: 1m, burst: 2, to: {paths: [/orders/1]}}\n"
        "    - {name: all, requests: 100, each: all}\n"
    )
    asked = ("orders.yaml", "limits.yaml", "--app", "orders", "--from")
    assert main(["policy", "explain", *asked, "web", "--path", "/orders/1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "limited by the rate reads: 5 calls in 60 s by each caller, 2 at once",
        "limited by the rate all: 100 calls in 1 s by all callers together, 100 at once",
    ]
    assert main(["policy", "explain", *asked, "web", "--path", "/orders/2", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rates"] == ["all"]
    assert main(["policy", "explain", *asked, "bad", "--path", "/orders/1"]) == 1
    assert "limited" not in capsys.readouterr().out


def test_faults_that_a_call_would_meet_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("faults.yaml").write_text(
        "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: x}\nspec:\n  inbound:\n    faults:\n"
        "    - {name: slow, percent: 7, times: 3, delay: {min: 100ms, max: 1s}, from: {apps: [web]}}\n"
        "    - {name: broken, abort: {status: 503, grpc: UNAVAILABLE}}\n"
        "    - {name: code-alone, abort: {grpc: 5}}\n"
        "    - {name: elsewhere, unavailable: true, to: {paths: [/orders/9]}}\n"
    )
    asked = ("orders.yaml", "faults.yaml", "--app", "orders", "--from")
    assert main(["policy", "explain", *asked, "web", "--path", "/orders/1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "with --enable-fault-injection: the fault slow delays the call by 0.1 to 1 s, in 7 % of attempts, 3 times at most",
        "with --enable-fault-injection: the fault broken answers with status 503, in 100 % of attempts",
    ]
    assert main(["policy", "explain", *asked, "cart", "--grpc", "/shop.Orders/Place", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == ["broken", "code-alone"]
    assert main(["policy", "explain", *asked, "bad", "--path", "/orders/1"]) == 1
    assert "the fault" not in capsys.readouterr().out


def test_denial_tells_how_the_path_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = explained(capsys, "--from", "web", "--path", "/orders/%2e%2e/Admin")
    assert code == 1
    assert "denied by rule no-admin of orders (orders.yaml:10)" in lines[0]
    assert lines[1] == "the path is denied as an app may read it: /Admin"
    assert "no rule can allow it" in lines[2]


@pytest.mark.parametrize(
    "asked",
    [
        ("--from", "web", "-X", "POST", "--path", "/orders/1"),
        ("--from", "web.far", "--path", "/orders/1"),
        ("--from", "spiffe://other/ns/far/web", "--grpc", "/shop.Orders/List"),
        ("--from", "anonymous", "--path", "/healthz"),
    ],
)
def test_rule_that_is_proposed_allows_the_call(
    asked: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = explained(capsys, *asked)
    assert code == 1
    assert lines[1] == "to allow it, add to the rules of an AccessPolicy for orders:"
    Path("orders.yaml").write_text(f"{ORDERS}{lines[2]}\n")
    assert explained(capsys, *asked)[0] == 0


def test_access_control_is_told_beside(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = explained(capsys, "--from", "web", "--path", "/orders/x", files="entry.yaml")
    assert (code, "denied by rule /orders/x of web (entry.yaml:12)" in lines[0]) == (1, True)
    code, lines = explained(capsys, "--from", "web", "-X", "PUT", "--path", "/orders/y", files="entry.yaml")
    assert lines[1] == "spec.accessControl alone denies it (reason=default-app)"
    Path("entry.yaml").write_text(
        ENTRY.replace("operations:\n", f"operations:\n      - {lines[3].strip()}\n")
    )
    assert explained(capsys, "--from", "web", "-X", "PUT", "--path", "/orders/y", files="entry.yaml")[0] == 0


def test_cases_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    cases = (
        "app: orders\nfiles: [orders.yaml]\ncases:\n"
        "- {name: reads, from: web, path: /orders/1, expect: allow}\n"
        "- {from: cart, grpc: /shop.Orders/Place, expect: allow}\n"
        "- {from: a-job, headers: {X-Run: nightly}, expect: allow}\n"
        "- {from: web, method: POST, path: /orders/1, expect: deny}\n"
    )
    Path("cases.yaml").write_text(cases)
    assert main(["policy", "test", "cases.yaml"]) == 0
    assert capsys.readouterr().err == "4 cases, all as expected\n"
    Path("cases.yaml").write_text(cases.replace("expect: deny", "expect: allow, name: writes"))
    assert main(["policy", "test", "cases.yaml"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("cases.yaml:7: writes: expected allow, denied: no rule")
    assert told.err == "4 cases, 1 not as expected\n"
    Path("cases.yaml").write_text(cases.replace("expect: deny", "expects: deny"))
    assert main(["policy", "test", "cases.yaml"]) == 1
    assert "cases.yaml:7: cases[3].expect: is missing" in capsys.readouterr().err


def test_rules_are_listed_as_they_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "list", "orders.yaml", "--app", "orders", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in rows] == ["no-admin", "reads", "place", "nightly"]
    assert (rows[1]["to"], rows[1]["where"]) == ("methods GET; paths /orders/{*}", "orders.yaml:7")
    assert main(["policy", "list", "orders.yaml", "--app", "other"]) == 0
    assert capsys.readouterr().err == "no AccessPolicy here is for other\n"


def test_difference_for_recorded_calls_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.yaml").write_text(ORDERS.replace("apps: [web]", "apps: [cart]"))
    asked = ["policy", "diff", "orders.yaml", "new.yaml", "--app", "orders", "--calls", "log.json"]
    assert main([*asked, "-o", "json"]) == 1
    told = capsys.readouterr()
    changes = [(row["call"], row["before"], row["after"]) for row in json.loads(told.out)]
    assert changes == [("GET /orders/17", "allow", "deny"), ("GET /orders/18", "allow", "deny")]
    assert told.err == "2 of 5 kinds of calls to orders would be decided otherwise\n"
    asked[3] = "orders.yaml"
    assert main(asked) == 0


def test_suggested_policy_allows_what_was_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "suggest", "--app", "orders", "--calls", "log.json"]) == 0
    text = capsys.readouterr().out
    assert "mode: audit" in text
    assert "/orders/{*}" in text
    Path("made.yaml").write_text(text.replace("mode: audit", "mode: enforce"))
    callers = (
        ("--from", "web", "--path", "/orders/19"),
        ("--from", "cart.far", "--grpc", "/shop.Orders/Place"),
        ("--from", "anonymous", "--path", "/healthz"),
    )
    assert [explained(capsys, *one, files="made.yaml")[0] for one in callers] == [0, 0, 0]
    assert explained(capsys, "--from", "bad", "--path", "/x", files="made.yaml")[0] == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["explain", "none.yaml", "--app", "a", "--from", "b"], "no such file or folder"),
        (["explain", "orders.yaml", "--app", "a", "--from", "b c"], "'b c' is not a caller"),
        (["explain", "orders.yaml", "--app", "a", "--from", "spiffe://x"], "spiffe://x"),
        (["explain", "orders.yaml", "--app", "a", "--from", "b", "-X", "G T"], "is not an HTTP method"),
        (["explain", "log.json", "--app", "a", "--from", "b"], "log.json"),
        (["suggest", "--app", "other", "--calls", "log.json"], "has no calls to other"),
        (["suggest", "--app", "other", "--calls", "orders.yaml"], "orders.yaml:1: is not JSON"),
        (["suggest", "--app", "other", "--calls", "none"], "can't be read"),
    ],
)
def test_what_can_not_be_judged_is_told(
    asked: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", *asked]) in (1, 2)
    assert told in capsys.readouterr().err


def test_lint_reads_access_policies(capsys: pytest.CaptureFixture[str]) -> None:
    Path("orders.yaml").write_text(ORDERS.replace("paths:", "path:"))
    assert main(["analyze", "orders.yaml"]) == 1
    assert "orders.yaml:7: error PST0002: spec.rules[0].to.path: unknown key" in capsys.readouterr().out


def test_claims_of_a_token_may_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    jwt = '  jwt: [{name: idp, issuer: "https://idp", audiences: [orders]}]\n  rules:\n'
    clerks = "  - {name: refunds, action: allow, to: {paths: [/refunds]}, when: {jwt: {claims: {role: [clerk]}}}}\n"
    Path("orders.yaml").write_text(ORDERS.replace("  rules:\n", jwt) + clerks)
    asked = ("--from", "web", "--path", "/refunds")
    assert explained(capsys, *asked, "--claims", '{"iss": "https://idp", "role": "clerk"}')[0] == 0
    assert explained(capsys, *asked, "--claims", '{"iss": "https://idp", "role": "guest"}')[0] == 1
    assert explained(capsys, *asked)[0] == 1
    code, lines = explained(capsys, *asked, "--claims", "clerk")
    assert (code, "is not the claims of a token" in lines[0]) == (2, True)
    case = "  - {expect: allow, from: web, path: /refunds, claims: {iss: 'https://idp', role: [clerk]}}\n"
    Path("cases.yaml").write_text("app: orders\nfiles: [orders.yaml]\ncases:\n" + case)
    assert main(["policy", "test", "cases.yaml"]) == 0


ASKING = """
apiVersion: postern.dev/v1alpha1
kind: AccessPolicy
metadata: {name: orders}
spec:
  authorizers: [{name: opa, grpc: "localhost:9191"}]
  rules:
  - {name: all, action: allow, from: {apps: [web]}}
  - {name: payments, action: authorize, authorizer: opa, from: {apps: [web]}, to: {paths: ["/payments/{**}"]}}
"""


def test_authorizers_that_a_call_is_asked_about_by_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("asking.yaml").write_text(ASKING)
    explain = ["policy", "explain", "asking.yaml", "--app", "orders", "--from", "web"]
    assert main([*explain, "--path", "/payments/1"]) == 0
    assert "asks authorizer opa: only what it lets pass reaches the app" in capsys.readouterr().out
    assert main([*explain, "--path", "/else"]) == 0
    assert "asks authorizer" not in capsys.readouterr().out
    assert main(["policy", "list", "asking.yaml", "--app", "orders", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(row["rule"], row["action"]) for row in listed] == [("all", "allow"), ("payments", "authorize")]
    cases = (
        "app: orders\nfiles: [asking.yaml]\ncases:\n"
        "- {from: web, path: /payments/1, expect: allow, asks: [opa]}\n"
        "- {from: web, path: /else, expect: allow, asks: []}\n"
        "- {from: web, path: /payments/1, expect: allow}\n"
    )
    Path("cases.yaml").write_text(cases)
    assert main(["policy", "test", "cases.yaml"]) == 0
    capsys.readouterr()
    Path("cases.yaml").write_text(cases.replace("asks: []", "asks: [opa]"))
    assert main(["policy", "test", "cases.yaml"]) == 1
    assert "expected allow, asking opa, allowed by rule all of orders" in capsys.readouterr().out
