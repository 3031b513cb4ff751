"""`postern validate` and `postern fmt` on files."""

import json
import os
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


def test_word_that_an_option_does_not_have_is_told_in_plain_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "-o", "yamll"]) == 2
    assert (
        "Invalid value for '--output' / '-o': 'yamll' is not one of 'text', 'json'."
        in capsys.readouterr().err
    )


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
    assert "not a postern document" in capsys.readouterr().out
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
    assert main(["fmt", "--diff", "r.yaml"]) == 1
    assert "+  name: mesh" in capsys.readouterr().out
    assert path.read_text() == RESILIENCY
    assert main(["fmt", "r.yaml"]) == 0
    assert "  policies:\n    timeouts: {short: 2s}   # ours\n" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in folder.iterdir() if each.name.startswith(".")] == []
    assert main(["fmt", "--check", "r.yaml"]) == main(["fmt", "--diff", "r.yaml"]) == 0
    assert (folder / "other.yaml").read_text() == "a:   1\n"


def test_file_with_several_names_keeps_them(folder: Path) -> None:
    path, other = folder / "r.yaml", folder / "same.txt"
    other.hardlink_to(path)
    assert main(["fmt", "r.yaml"]) == 0
    assert other.samefile(path)
    assert other.read_text().splitlines()[2] == "  name: mesh"


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
    (folder / "r.yaml").write_text(RESILIENCY)
    (folder / "b.yaml").unlink()
    assert main(["fmt"]) == 0
    assert "    timeouts: {short: 2s}" in (folder / "r.yaml").read_text()


@pytest.mark.parametrize("command", [["validate"], ["fmt", "--check"], ["analyze"]])
def test_pipe_is_left_out_and_a_circle_of_links_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    os.mkfifo(folder / "pipe.yaml")
    main([*command, "."])
    assert "pipe.yaml: left out, as it is not a regular file" in capsys.readouterr().err
    assert main([*command, "pipe.yaml"]) == 2
    assert "pipe.yaml: is neither a regular file nor a folder" in capsys.readouterr().err
    (folder / "loop.yaml").symlink_to("loop.yaml")
    assert main([*command, "loop.yaml"]) == (2 if command[0] == "fmt" else 1)
    assert main([*command, "."]) == 1
    if command[0] != "fmt":
        assert "loop.yaml: " in (out := capsys.readouterr().out)
        assert "Too many levels of symbolic links" in out


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a" * 5_000_000, "too large"), ("kind: Traffic\nspec: " + "[" * 200_000, "too deep or too large")],
)
@pytest.mark.parametrize("command", [["validate"], ["fmt", "--check"], ["analyze"]])
def test_file_that_is_too_large_or_too_deep_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], text: str, problem: str
) -> None:
    (folder / "big.yaml").write_text(text)
    assert main([*command, "big.yaml"]) == 1
    told = "".join(capsys.readouterr())
    assert told.startswith("big.yaml:")
    assert f"is {problem}" in told


def test_faults_in_how_values_are_written_do_not_hide_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "kind: Resiliency\nmetadata:\n  name: y\nspec:\n  polices: {}\nspec: 1\n"
    (folder / "r.yaml").write_text(text)
    assert main(["validate"]) == 1
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == ["r.yaml:3", "r.yaml:5", "r.yaml:6"]
    assert err == "1 file: 3 faults\n"
    (folder / "r.yaml").write_text("a: 1\na: 2\n")
    assert main(["validate", "r.yaml"]) == 1
    assert capsys.readouterr().err == "1 file: 1 fault\n"


def test_variable_that_is_not_set_and_a_broken_file_hide_no_other_faults(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_RATE", raising=False)
    (folder / "c.yaml").write_text(
        "kind: Configuration\nmetadata: {name: c}\nspec:\n  tracing:\n    samplingRate: $NO_RATE\n    conventions: own\n  bogus: 1\n"
    )
    (folder / "dapr.yaml").write_text("version: 1\napps:\n- appID: cart\n appDirPath: .\n")
    (folder / "r.yaml").write_text(RESILIENCY.replace("2s", "soon"))
    assert main(["validate"]) == 1
    out, err = capsys.readouterr()
    places = [line.split(": ")[0] for line in out.splitlines()]
    assert places == ["c.yaml:5", "c.yaml:6", "c.yaml:7", "dapr.yaml:4", "r.yaml:6"]
    assert "variable NO_RATE is not set" in out
    assert "\ue000" not in out
    assert err == "3 files: 5 faults\n"


def test_callable_that_is_not_installed_is_told_with_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "kind: Configuration\nspec:\n  tracing:\n    tail: {callable: 'no_such_module:wants'}\n"
    (folder / "c.yaml").write_text(text)
    assert main(["validate", "c.yaml"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("c.yaml:4: spec.tracing.tail.callable: `no_such_module:wants` can't be imported")
    assert "pipx inject postern" in out


def test_each_document_beside_a_configuration_is_judged_by_its_kind(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "---\nkind: Configuration\nmetadata: {name: c}\nspec: {tracin: {}}\n"
    (folder / "r.yaml").write_text(RESILIENCY + other)
    assert main(["validate"]) == 1
    out, err = capsys.readouterr()
    told = [line.split(" (")[0] for line in out.splitlines()]
    assert told == [
        "r.yaml:1: is a second document beside a Configuration",
        "r.yaml:10: spec.tracin: unknown key",
    ]
    assert err == "1 file: 2 faults\n"
