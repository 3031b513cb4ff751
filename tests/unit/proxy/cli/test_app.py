"""What the command says when it is used wrongly or a call fails: each names the fault and the way out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from proxy.cli.__main__ import main
from proxy.cli.app import _ELSEWHERE, build
from proxy.cli.invoke import outcome
from proxy.cli.unit import killed_by
from proxy.wire.http_client import LocalResponse


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "postern lst: no such command; did you mean list?\n"),
        (["statsu"], "postern statsu: no such command; did you mean status?\n"),
        (["publish"], "postern publish: not part of postern, which has service invocation only\n"),
        (["workflow"], "postern workflow: not part of postern, which has service invocation only\n"),
        (["upgrade", "-k"], "postern upgrade: is for Kubernetes, which is not built yet\n"),
        (["status", "-k"], "postern status: -k is for Kubernetes, which is not built yet\n"),
        (["mtls", "expiry", "-k"], "postern mtls: -k is for Kubernetes, which is not built yet\n"),
        (["run", "-k", "-f", "."], "postern run: -k is for Kubernetes, which is not built yet\n"),
        (
            ["get", "foo"],
            "postern get: foo: no such kind; expected configurations, resiliency, accesspolicies, traffic, "
            "httpendpoints, components, all\n",
        ),
        (
            ["logs"],
            "postern logs: expected an app; name one or several, as in `postern logs cart checkout`\n",
        ),
        (
            ["logs", "x", "--since", "soon"],
            "postern logs: --since soon: expected a length such as 10m, or a time such as 2026-01-31T12:00:00Z\n",
        ),
    ],
)
def test_unknown_command_is_told_with_the_nearest(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", said)


def test_error_names_the_command_within_its_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "diff", "nosuch", "--runtime-path", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("postern config diff: nosuch: no such app runs here")


def test_unknown_command_near_nothing_is_told_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qqq"]) == 2
    assert "init, invoke, list, log-level, logs," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["wait", "--help"], "--timeout"),
        (["wait", "-h"], "Exit codes"),
        (["version", "--help"], "-o json"),
        (["run", "--help"], "--app-port"),
        (["sidecar", "--help"], "--app-port"),
        (["status", "--help"], "--runtime-path"),
        (["--help"], "1 if one is not ready.\n"),
    ],
)
def test_help_is_shown(words: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert shown in out
    assert err == ""


def test_answer_of_the_mesh_is_not_taken_for_the_apps() -> None:
    ours = LocalResponse(500, ((b"postern-error", b"no-app"),))
    said = outcome("cart", "web", ours, "500 Internal Server Error", "3 ms")
    assert said == "✗ cart did not answer web: 500 Internal Server Error (no-app) from the mesh in 3 ms"
    traced = LocalResponse(200, ((b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"),))
    assert outcome("cart", "web", traced, "200 OK", "3 ms").endswith(f"3 ms, trace {'a' * 32}")
    assert outcome("cart", "web", LocalResponse(404), "404 Not Found", "3 ms").startswith(
        "✗ cart answered 404"
    )
    assert outcome("cart", "web", LocalResponse(200), "200 OK", "3 ms").startswith("✓ cart answered 200")


@pytest.mark.parametrize(
    ("code", "said"), [(139, " (SIGSEGV)"), (137, " (SIGKILL)"), (3, ""), (128, ""), (255, "")]
)
def test_signal_behind_an_exit_code(code: int, said: str) -> None:
    assert killed_by(code) == said


def _commands(words: tuple[str, ...], group: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each command with its help, those of groups too; not other names, nor those without the framework."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands((*words, name), command)
        elif name not in _ELSEWHERE and not command.hidden:
            yield (*words, name), command.help or ""


def test_help_of_each_command_has_an_example_of_it() -> None:
    found = list(_commands(("postern",), typer.main.get_command(build())))
    assert len(found) > 35
    for words, text in found:
        (example,) = re.findall(r"^Example: (?:source <\()?(.*?)\)?$", text, re.MULTILINE) or [""]
        assert example.startswith(" ".join(words)), words
