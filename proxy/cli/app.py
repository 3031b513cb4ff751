"""Puts the commands together. Loaded only for those that `__main__` does not run itself."""

import difflib
import os
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from proxy.cli.analyze import analyze
from proxy.cli.bundle import bundle
from proxy.cli.check import check
from proxy.cli.completion import COMPLETING, listed
from proxy.cli.config_live import config
from proxy.cli.configurations import configurations
from proxy.cli.dashboard import dashboard
from proxy.cli.errors import FAILED, KUBERNETES, KUBERNETES_FLAGS, CliError
from proxy.cli.explain import explain
from proxy.cli.fmt import fmt
from proxy.cli.get import get
from proxy.cli.invoke import invoke
from proxy.cli.listing import endpoints, list_apps, status
from proxy.cli.log_level import log_level
from proxy.cli.logs import logs
from proxy.cli.mtls import mtls
from proxy.cli.policy.command import policy
from proxy.cli.rates import edges, stat, top
from proxy.cli.resolve import resolve
from proxy.cli.shim import init, uninstall
from proxy.cli.stop import stop
from proxy.cli.tables import tell, tell_error
from proxy.cli.tap import tap
from proxy.cli.trace import trace
from proxy.cli.validate import validate
from telemetry.failures import causes

_ELSEWHERE = {
    "run": "Run an app, or the apps of a run file, with sidecars.",
    "sidecar": "Run a sidecar alone.",
    "sentry": "Run the certificate authority alone.",
    "wait": "Wait until a sidecar is ready.",
    "version": "Print the version.",
}
_COMMANDS: tuple[Callable[..., None], ...] = (
    *(status, stop, invoke, explain, endpoints, resolve, check, analyze, bundle),
    *(tap, top, stat, edges, trace, dashboard),
    *(logs, get, configurations, validate, fmt, init, uninstall),
)
_GROUPS = {"mtls": mtls, "config": config, "policy": policy}
# Commands that have a -k in Dapr's command line.
_HAS_KUBERNETES = frozenset({"init", "uninstall", "list", "status", "stop", "logs", "configurations", "mtls"})
# Words of Dapr's command line that do nothing here -> why, and what to do instead.
_MISSING = {
    **dict.fromkeys(
        ("publish", "scheduler", "workflow", "mcpservers"),
        "not part of postern, which has service invocation only",
    ),
    "components": "use `postern get components`: of Dapr's components, postern has HTTP middleware only",
    **dict.fromkeys(("annotate", "upgrade"), f"is {KUBERNETES}"),
    "build-info": "use `postern version`, or `postern sidecar --build-info`",
}


class _Commands(TyperGroup):
    """The framework tells of a word that is none of an option's in the words of its checker: `Value error, …`."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - of a class that the framework keeps to itself
        """Run the command that is named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


def build() -> typer.Typer:
    """The command with all its groups."""
    app = typer.Typer(
        name="postern",
        cls=_Commands,
        help="A service-invocation mesh edge: a small private gate beside every app.",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    is_completing = COMPLETING in os.environ
    for name, about in _ELSEWHERE.items():
        app.command(name, help=about)(listed(name) if is_completing else _listed_only)
    app.command("list")(list_apps)
    app.command("log-level")(log_level)
    app.command()(completion)
    for command in _COMMANDS:
        app.command(command.__name__)(command)
    for name, group in _GROUPS.items():
        app.add_typer(group, name=name)
    return app


class Shell(Enum):
    """Those that there are scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh, fish or powershell")]) -> None:
    """Print the script that has a shell complete commands, flags and the app-ids that run here.

    Example: source <(postern completion bash)
    """
    os.environ[COMPLETING] = f"source_{shell.value}"
    build()([], prog_name="postern")


def _listed_only() -> None:
    """These commands run without us: `proxy.cli.__main__` takes them before; here they stand in the list."""


def _names() -> list[str]:
    return sorted(
        (
            *_ELSEWHERE,
            "list",
            "log-level",
            "completion",
            *_GROUPS,
            *(command.__name__ for command in _COMMANDS),
        )
    )


def unknown(word: str) -> str:
    """The message for an unknown command."""
    names = _names()
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(names)}"
    return f"no such command; {hint}"


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if argv and argv[0] in _MISSING:
        tell(f"postern {argv[0]}: {_MISSING[argv[0]]}")
        return 2
    if argv and not argv[0].startswith("-") and argv[0] not in _names():
        tell(f"postern {argv[0]}: {unknown(argv[0])}")
        return 2
    if argv and argv[0] in _HAS_KUBERNETES and (asked := KUBERNETES_FLAGS.intersection(argv)):
        tell(f"postern {argv[0]}: {min(asked)} is {KUBERNETES}")
        return 2
    command = " ".join(["postern", *argv[: 2 if argv and argv[0] in _GROUPS else 1]])
    try:
        build()(list(argv), prog_name="postern")
    except CliError as error:
        tell_error(command, error)
        return error.code
    except OSError as error:
        for cause in causes(error, ()) or ():
            tell(f"{command}: {cause}")
        return FAILED
    except SystemExit as ended:  # how the framework ends, with the code that it or the command chose
        return ended.code if isinstance(ended.code, int) else 0
    return 0
