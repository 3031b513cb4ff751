"""`postern config show`: lines of files, and what is printed."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nameresolution.host_registry import Entry, HostRegistry
from proxy.cli.__main__ import main
from proxy.cli.config import _print, configuration_fields, run_file_lines


def entry(run_template: str, app_id: str = "cart") -> Entry:
    return Entry(app_id=app_id, instance="i", peer_port=1, run_template=run_template, admin_socket="/nowhere")


def test_lines_of_a_run_file_are_those_of_the_app_before_the_common_ones(tmp_path: Path) -> None:
    path = tmp_path / "dapr.yaml"
    path.write_text(
        "version: 1\ncommon:\n  logLevel: warn\n  appProtocol: grpc\napps:\n"
        "- appID: cart\n  appDirPath: .\n  appPort: 80\n  appProtocol: http\n- appDirPath: web\n"
    )
    assert run_file_lines(entry(str(path))) == {
        "app-id": f"{path}:6 (appID)",
        "app-port": f"{path}:8 (appPort)",
        "app-protocol": f"{path}:9 (appProtocol)",
        "log-level": f"{path}:3 (logLevel)",
    }
    assert run_file_lines(entry(str(path), "web"))["app-protocol"] == f"{path}:4 (appProtocol)"
    assert run_file_lines(entry(str(path), "gone")) == {}
    assert run_file_lines(entry("")) == {}
    path.write_text("apps: [")
    assert run_file_lines(entry(str(path))) == {}


def test_fields_of_the_later_file_win_and_secrets_stay_inside(tmp_path: Path) -> None:
    one, two, broken = tmp_path / "1.yaml", tmp_path / "2.yaml", tmp_path / "3.yaml"
    one.write_text("kind: Configuration\nspec:\n  a: 1\n  list: [{b: x}, {token: hunter2}]\n  none: {}\n")
    two.write_text("kind: Configuration\nspec:\n\n  a: 2\n")
    broken.write_text("x: [")
    rows = configuration_fields([str(one), str(two), str(broken)])
    assert [(row["name"], row["value"], row["by"].rpartition("/")[2]) for row in rows[:-1]] == [
        ("spec.a", 2, "2.yaml:4"),
        ("spec.list[0].b", "x", "1.yaml:4"),
        ("spec.list[1].token", "(removed)", "1.yaml:4"),
        ("spec.none", {}, "1.yaml:5"),
    ]
    assert "is not valid YAML" in rows[-1]["by"]
    assert configuration_fields([]) == []


def test_defaults_are_shown_where_all_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "drain", "value": 2.0, "source": "default", "by": "--drain"},
        {"name": "egress", "value": ["a", "b"], "source": "flag", "by": "--egress"},
        {"name": "log-json", "value": True, "source": "run file", "by": "dapr.yaml:3 (x)"},
    ]
    told = {"appId": "cart", "namespace": "n", "answers": True, "settings": rows, "configuration": [rows[1]]}
    _print(told, is_wide=False)
    out, err = capsys.readouterr()
    assert out.splitlines()[:4] == [
        "cart.n",
        "SETTING   VALUE  SOURCE",
        "egress    a, b   flag --egress",
        "log-json  yes    dapr.yaml:3 (x)",
    ]
    assert err == "1 more are defaults: -o wide shows them\n"
    _print(told, is_wide=True)
    assert "drain     2.0    default" in capsys.readouterr().out


def test_sidecar_that_does_not_answer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o700)
    words = ["config", "show", "--runtime-path", str(tmp_path)]
    assert main(words) == 1
    assert "no sidecar runs in" in capsys.readouterr().err
    with closing(HostRegistry(tmp_path).register(entry(""))):
        assert main(words) == 0
        assert "cart: its sidecar does not tell its settings" in capsys.readouterr().err
        assert main([*words, "-o", "json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)
        assert (told["answers"], told["settings"]) == (False, [])
        path = tmp_path / "b.tar.gz"
        assert main(["bundle", "-o", str(path), "--runtime-path", str(tmp_path)]) == 0
        assert "cart.default-i/status.json" in capsys.readouterr().out
        assert main(["resolve", "pay", "--runtime-path", str(tmp_path)]) == 1
        assert "does not answer" in capsys.readouterr().err
