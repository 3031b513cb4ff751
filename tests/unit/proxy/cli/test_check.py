"""`postern check` as a whole, where nothing runs, and what it prints."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from nameresolution.host_registry import Entry, HostRegistry
from proxy.cli.__main__ import main
from proxy.cli.check import render, summary
from proxy.cli.checks.findings import fail, ok, warn


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A private runtime root in which nothing runs."""
    folder = tmp_path / "root"
    folder.mkdir(mode=0o700)
    return str(folder)


def test_where_nothing_runs_all_may_be_well(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--runtime-path", root, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    groups = list(dict.fromkeys(each["group"] for each in told["checks"]))
    assert groups == ["this host", "network", "authority", "sidecars"]


def test_pre_is_about_host_and_network(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--pre", "--runtime-path", root]) == 0
    out = capsys.readouterr().out
    assert out.startswith("this host\n✓ postern ")
    assert "\nauthority\n" not in out
    Path(root).chmod(0o755)
    assert main(["check", "--pre", "--runtime-path", root, "-o", "short"]) == 1
    assert "[runtime-root]" in capsys.readouterr().out


def test_proxy_needs_a_sidecar_that_answers(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--proxy", "--runtime-path", root]) == 1
    assert f"✗ no sidecar runs in {root}" in " ".join(capsys.readouterr().out.split())
    assert main(["check", "cart", "--proxy", "--runtime-path", root, "--wait", "--timeout", "1s"]) == 1
    entry = Entry(app_id="cart", instance="i", peer_port=1, pid=7, admin_socket="/nowhere")
    with closing(HostRegistry(Path(root)).register(entry)):
        assert main(["check", "cart", "--proxy", "--runtime-path", root]) == 1
        assert "does not answer on /nowhere" in capsys.readouterr().out
        assert main(["check", "--runtime-path", root, "-o", "short"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pre", "--proxy"], "two different checks"),
        (["cart"], "`postern check cart --proxy` checks one sidecar"),
        (["--wait", "--timeout", "soon"], "--timeout: 'soon', expected a duration"),
    ],
)
def test_wrong_use_is_told(
    root: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words, "--runtime-path", root]) == 2
    assert said in capsys.readouterr().err


def test_collectors_of_a_configuration_are_tried(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(root) / "c.yaml"
    path.write_text(
        "kind: Configuration\nmetadata: {name: c}\n"
        'spec: {tracing: {samplingRate: "1", zipkin: {endpointAddress: "http://127.0.0.1:1/"}}}\n'
    )
    assert main(["check", "--pre", "--config", str(path), "--runtime-path", root]) == 1
    assert "✗ trace collector 127.0.0.1:1: nobody listens there" in capsys.readouterr().out
    path.write_text("kind: [")
    assert main(["check", "--pre", "--config", str(path), "--runtime-path", root]) == 1
    assert "c.yaml" in capsys.readouterr().err


def test_lines_are_cut_to_the_width_and_hints_stand_below() -> None:
    found = (
        ok("disk", "room"),
        warn("port", "port 1 is held"),
        fail("sentry", "x " * 30 + "\x1b[2J", "do this"),
    )
    assert list(render(found, 60, is_coloured=False)) == [
        "this host",
        "✓ room",
        "‼ port 1 is held [port]",
        "    → `postern run` takes another one by itself; `postern",
        "      sidecar` needs it free, or a flag that names another",
        "",
        "authority",
        "✗ " + ("x " * 29).rstrip(),
        "  x \\x1b[2J [sentry]",
        "    → do this",
    ]
    assert next(iter(tuple(render(found, 60, is_coloured=True))[1:])) == "\x1b[32m✓\x1b[0m room"


@pytest.mark.parametrize(
    ("failed", "warnings", "said"),
    [
        (0, 0, "no failures"),
        (0, 1, "no failures, 1 warning"),
        (1, 0, "1 check failed"),
        (2, 3, "2 checks failed, 3 warnings"),
    ],
)
def test_last_line_counts(failed: int, warnings: int, said: str) -> None:
    assert summary({"ok": 9, "failed": failed, "warning": warnings}) == said
