"""What the shell offers after Tab."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from nameresolution.host_registry import Entry, HostRegistry
from proxy.cli.__main__ import main
from tests.integration.cli.conftest import Commands


def asking(*words: str) -> dict[str, str]:
    """What bash tells a command that is to complete the last word."""
    return {
        "_POSTERN_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("postern", *words)),
        "COMP_CWORD": str(len(words)),
    }


@contextmanager
def two_apps(root: Path) -> Iterator[None]:
    """Entries of `cart` and `checkout`."""
    registry = HostRegistry(root)
    with (
        closing(registry.register(Entry(app_id="cart", instance="a1", peer_port=1))),
        closing(registry.register(Entry(app_id="checkout", instance="b2", peer_port=2))),
    ):
        yield


async def test_command_completes_what_bash_asks_for(commands: Commands) -> None:
    with two_apps(commands.mesh.root):
        process = commands.start(env=asking("status", "c"))
        assert await process.ended(timeout_s=30.0) == 0
    assert process.output.split() == ["cart", "checkout"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("sid",), ["sidecar"]),
        (("run", "--app-p"), ["--app-port", "--app-protocol"]),
        (("run", "--keep-g"), ["--keep-going"]),
        (("sidecar", "--sentry-a"), ["--sentry-address"]),
        (("sidecar", "--engine", "n"), ["native"]),
        (("run", "--app-protocol", "grpc"), ["grpc", "grpcs"]),
        (("wait", "--ti"), ["--timeout"]),
        (("wait", "ca"), ["cart"]),
        (("stop", "--instance", "a"), ["a1"]),
        (("invoke", "--from", "ch"), ["checkout"]),
        (("logs", "cart", "ch"), ["checkout"]),
        (("config", "re"), ["reload"]),
        (("config", "diff", "ca"), ["cart"]),
        (("get", "htt"), ["httpendpoints"]),
        (("fmt", "--ch"), ["--check"]),
        (("completion", "z"), ["zsh"]),
    ],
)
def test_flags_values_and_apps_are_offered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    found: list[str],
) -> None:
    """In this process: each start of the command costs as much as all of these."""
    for name, value in {**asking(*words), "POSTERN_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with two_apps(tmp_path):
        assert main([]) == 0
    assert sorted(capsys.readouterr().out.split()) == found


@pytest.mark.parametrize(
    ("shell", "mark"),
    [
        ("bash", "complete -o default -F _postern_completion postern"),
        ("zsh", "#compdef postern"),
        ("fish", "complete --command postern"),
        ("powershell", "Register-ArgumentCompleter"),
    ],
)
async def test_script_of_each_shell_is_printed(commands: Commands, shell: str, mark: str) -> None:
    code, output = await commands.done("completion", shell)
    assert (code, mark in output) == (0, True)


async def test_unknown_shell_is_refused(commands: Commands) -> None:
    assert (await commands.done("completion", "tcsh"))[0] == 2
