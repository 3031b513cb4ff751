"""`postern validate` and `postern fmt` on files."""

import json
from pathlib import Path

import pytest

from proxy.cli.__main__ import main

RESILIENCY = "kind: Resiliency\nmetadata:\n    name: mesh\nspec:\n    policies:\n        timeouts: {short: 2s}   # ours\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RESILIENCY)
    (tmp_path / "other.yaml").write_text("a:   1\n")
    return tmp_path


def test_files_that_would_be_loaded_are_valid_and_lint_is_left_to_analyze(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate"]) == 0
    assert capsys.readouterr() == ("", "1 file: valid\n")
    assert main(["analyze"]) == 0
    assert "PST0202" in capsys.readouterr().out


def test_faults_are_told_with_file_line_and_field(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "r.yaml").write_text(RESILIENCY.replace("2s", "soon").replace("policies", "polices"))
    assert main(["validate", "r.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("r.yaml:5: spec.polices: ")
    assert err == "1 file: 1 fault\n"
    assert main(["validate", "-o", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], told["faults"][0]["line"], told["faults"][0]["field"]) == (1, 5, "spec.polices")


def test_faults_of_a_run_file_and_what_is_no_document_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dapr.yaml").write_text("version: 1\napps:\n- appID: cart\n  appDirPath: nowhere\n")
    assert main(["validate", "dapr.yaml"]) == 1
    assert capsys.readouterr().out.startswith("dapr.yaml:4: apps[0].appDirPath: ")
    assert main(["validate", "other.yaml"]) == 1
    assert "no document of postern's" in capsys.readouterr().out
    (folder / "r.yaml").unlink()
    (folder / "dapr.yaml").unlink()
    assert main(["validate"]) == 2
    assert main(["validate", "gone"]) == 2


def test_check_and_diff_write_nothing_and_fmt_does_and_is_done_then(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "r.yaml"
    path.chmod(0o640)
    assert main(["fmt", "--check", "."]) == 1
    out, err = capsys.readouterr()
    assert (out.strip(), err) == (str(path), "1 file: 1 would be changed\n")
    assert main(["fmt", "--diff", "r.yaml"]) == 0
    assert "+  name: mesh" in capsys.readouterr().out
    assert path.read_text() == RESILIENCY
    assert main(["fmt", "r.yaml"]) == 0
    assert "  policies:\n    timeouts: {short: 2s}   # ours\n" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in folder.iterdir() if each.name.startswith(".")] == []
    assert main(["fmt", "--check", "r.yaml"]) == 0
    assert (folder / "other.yaml").read_text() == "a:   1\n"


def test_file_that_cannot_be_formatted_stays_and_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "r.yaml").write_text("kind: &x Resiliency\n")
    (folder / "b.yaml").write_text("kind: [")
    assert main(["fmt", "r.yaml", "b.yaml"]) == 1
    err = capsys.readouterr().err
    assert "r.yaml: stays as it is: line 1 has an anchor" in err
    assert "b.yaml:2: is not valid YAML" in err
    assert (folder / "r.yaml").read_text() == "kind: &x Resiliency\n"
    assert main(["fmt"]) == 2
