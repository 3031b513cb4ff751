"""What the shell offers after Tab."""

from contextlib import closing

import pytest

from nameresolution.host_registry import Entry, HostRegistry
from tests.integration.cli.conftest import Commands


async def offered(commands: Commands, *words: str) -> list[str]:
    """What completes the last word."""
    asked = {
        "_POSTERN_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("postern", *words)),
        "COMP_CWORD": str(len(words)),
    }
    process = commands.start(env=asked)
    assert await process.ended(timeout_s=30.0) == 0
    return process.output.split()


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
        (("status", "c"), ["cart", "checkout"]),
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
async def test_flags_values_and_apps_are_offered(
    commands: Commands, words: tuple[str, ...], found: list[str]
) -> None:
    registry = HostRegistry(commands.mesh.root)
    with (
        closing(registry.register(Entry(app_id="cart", instance="a1", peer_port=1))),
        closing(registry.register(Entry(app_id="checkout", instance="b2", peer_port=2))),
    ):
        assert sorted(await offered(commands, *words)) == found


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
