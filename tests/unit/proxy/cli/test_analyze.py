"""`postern analyze` on files: each finding with its place and code."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.__main__ import main

HEAD = "apiVersion: dapr.io/v1alpha1\nmetadata: {name: x}\n"
TRAFFIC = "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: t}\nspec:\n"
CONFIGURATION = f"{HEAD}kind: Configuration\nspec:\n"
RESILIENCY = f"{HEAD}kind: Resiliency\nspec:\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and home."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "work"


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def analyzed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[tuple[str, str, int]]]:
    """Exit code, and code, severity and line of each finding."""
    code = main(["analyze", "-o", "json", *words])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, [(each["code"], each["severity"], each["line"]) for each in told["findings"]]


def test_files_without_a_fault_pass(capsys: pytest.CaptureFixture[str]) -> None:
    write("c.yaml", CONFIGURATION + "  tracing: {samplingRate: '1', stdout: true}\n")
    write("other.yaml", "services: {}\n")
    assert main(["analyze"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "1 file: nothing to say\n")


def test_fault_is_told_with_its_place_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    write("sub/c.yaml", CONFIGURATION + "  accesControl: {}\n")
    assert main(["analyze"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(
        "sub/c.yaml:5: error PST0002: spec.accesControl: unknown key (did you mean accessControl?"
    )
    assert err == "1 file: 1 error\n"


@pytest.mark.parametrize(("level", "code"), [("error", 0), ("warning", 1), ("info", 1)])
def test_level_says_what_fails(level: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    write("c.yaml", CONFIGURATION + "  tracing: {samplingRate: '1'}\n")
    assert analyzed(capsys, "--level", level) == (code, [("PST0305", "warning", 5)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RESILIENCY + "  policies: {timeouts: {a: 5s}}\n", [("PST0202", "warning", 5)]),
        (RESILIENCY + "  policies: {timeouts: {DefaultAppTimeoutPolicy: 5s}}\n", []),
        (
            RESILIENCY
            + "  policies: {timeouts: {a: 5s}}\n  targets: {components: {s: {outbound: {timeout: a}}}}\n",
            [("PST0006", "info", 6)],
        ),
        (
            RESILIENCY
            + "  policies: {retries: {a: {policy: constant, duration: 1s}}}\n  targets: {apps: {c: {retry: a}}}\n",
            [("PST0203", "warning", 5)],
        ),
        (
            RESILIENCY
            + "  policies: {retries: {a: {policy: constant, duration: 1s, matching: {httpStatusCodes: '429'}}}}\n"
            + "  targets: {apps: {c: {retry: a}}}\n",
            [],
        ),
        (CONFIGURATION + "  tracing: {samplingRate: '0', stdout: true}\n", [("PST0305", "warning", 5)]),
        (CONFIGURATION + "  tracing: {samplingRate: x}\n", [("PST0301", "error", 5)]),
        (
            CONFIGURATION
            + "  accessControl:\n    defaultAction: allow\n    policies:\n    - {appId: a, trustDomain: public, namespace: default,\n"
            + "       operations: [{name: /x, httpVerb: ['*'], action: deny}]}\n",
            [("PST0105", "warning", 8)],
        ),
        ("kind: AccessPolicy\n", [("PST0003", "error", 1)] * 3),
        (
            "kind: AccessPolicy\napiVersion: postern.dev/v1alpha1\nmetadata: {name: x}\nspec:\n  default: allow\n"
            "  rules: [{name: a, action: deny, to: {paths: [/admin]}}]\n",
            [("PST0105", "warning", 5)],
        ),
        (
            "kind: AccessPolicy\napiVersion: postern.dev/v1alpha1\nmetadata: {name: x}\nspec:\n  rules:\n"
            "  - {name: a, action: deny, when: {header: {x-a: [b]}}}\n",
            [("PST0112", "warning", 6)],
        ),
        ("kind: Traffic\n", [("PST0003", "error", 1)] * 3),
        (
            TRAFFIC + "  targets:\n    apps:\n      a: {balancing: {policy: ring-hash}}\n      a/b: {}\n",
            [("PST0219", "error", 7), ("PST0211", "error", 8)],
        ),
        (
            TRAFFIC + "  inbound: {concurrency: {limit: 5, minLimit: 2}}\n  targets:\n"
            "    apps:\n      a: {throttle: {window: 48h}}\n",
            [("PST0219", "error", 5), ("PST0219", "error", 8)],
        ),
    ],
)
def test_what_is_hardly_meant_is_told(
    text: str, expected: list[tuple[str, str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    write("x.yaml", text)
    assert analyzed(capsys, "x.yaml")[1] == expected


RUN_FILE = """\
version: 1
common: {resourcesPaths: [res]}
apps:
- {appID: cart, appDirPath: app, appPort: 8080, configFilePath: ../c.yaml, env: {PORT: 9000}, command: [a]}
- {appID: web, appDirPath: app, daprHTTPPort: 3501, env: {DAPR_HTTP_PORT: 3501}, command: [a]}
"""


def test_run_file_says_who_is_known_and_which_files_belong_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("dapr.yaml", RUN_FILE)
    write("app/x", "")
    access = "  accessControl: {defaultAction: deny, policies: [{appId: wbe, trustDomain: public, namespace: default}]}\n"
    write("c.yaml", CONFIGURATION + access)
    write(
        "res/r.yaml",
        RESILIENCY
        + "  policies: {timeouts: {a: 5s}}\n  targets: {apps: {crat: {timeout: a}, pay: {timeout: a}}}\n",
    )
    write(
        "res/p.yaml",
        f"{HEAD}kind: HTTPEndpoint\nspec: {{baseUrl: 'https://x'}}\n".replace("name: x", "name: pay"),
    )
    code, found = analyzed(capsys)
    assert code == 0
    assert found == [("PST0505", "info", 5), ("PST0506", "warning", 4), ("PST0504", "warning", 6)]


def test_run_file_with_faults_is_told_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write("dapr.yaml", RUN_FILE.replace("appPort: 8080", "appPort: 3501").replace("3501, env", "3501, evn"))
    assert analyzed(capsys)[1] == [("PST0002", "error", 5)]
    write("dapr.yaml", RUN_FILE)
    assert {code for code, *_ in analyzed(capsys)[1]} == {"PST0501"}


def test_policy_that_one_app_uses_and_another_does_not_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    apps = "".join(
        f"- {{appID: {name}, appDirPath: app, resourcesPaths: [../res, ../{name}], command: [a]}}\n"
        for name in "ab"
    )
    write("dapr.yaml", f"version: 1\napps:\n{apps}")
    write("app/x", "")
    write("b/x", "")
    write("res/r.yaml", RESILIENCY + "  policies: {timeouts: {t: 5s}}\n")
    write("a/r.yaml", RESILIENCY + "  targets: {apps: {b: {timeout: t}}}\n")
    assert analyzed(capsys) == (0, [])


def test_what_cannot_be_read_is_told_where_it_is_ours_or_named(capsys: pytest.CaptureFixture[str]) -> None:
    write("c.yaml", CONFIGURATION + "  tracing: {}\n")
    write("template.yaml", "{{ .Values }}: [")
    write("ours.yaml", "apiVersion: dapr.io/v1alpha1\nkind: [")
    write(".git/hidden.yaml", "apiVersion: dapr.io/v1alpha1\nkind: [")
    code, found = analyzed(capsys)
    assert (code, [each[0] for each in found]) == (1, ["PST0001"])
    assert len(analyzed(capsys, "template.yaml")[1]) == 1
    write("k8s.yaml", "apiVersion: v1\nkind: Component\n")
    assert analyzed(capsys, "k8s.yaml") == (1, [("PST0001", "error", 0)])


def test_nothing_of_ours_is_a_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze"]) == 2
    assert "no postern document in" in capsys.readouterr().err
    assert main(["analyze", "gone"]) == 2
    assert "no such file or folder" in capsys.readouterr().err
