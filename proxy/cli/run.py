"""`postern run`: one app after `--`, or the apps of a run file.

The sidecar's own flags are taken as they are and checked by its own parser before anything starts.
"""

import asyncio
import os
import random
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from proxy.cli.dapr_home import home_config, home_resources
from proxy.cli.errors import FAILED, KUBERNETES, KUBERNETES_FLAGS, CliError, UsageError
from proxy.cli.launch import AppSpec, free_ports
from proxy.cli.output import Console
from proxy.cli.tables import tell, tell_error
from proxy.errors import ConfigError
from proxy.settings.flags import FLAGS, help_text
from proxy.settings.parsing import parse
from proxy.settings.version import VERSION
from telemetry.failures import causes

SHORT = {
    "-a": "--app-id",
    "-p": "--app-port",
    "-P": "--app-protocol",
    "-c": "--config",
    "-H": "--dapr-http-port",
    "-G": "--dapr-grpc-port",
    "-I": "--dapr-internal-grpc-port",
    "-M": "--metrics-port",
    "-d": "--resources-path",
    "-u": "--unix-domain-socket",
    "-f": "--run-file",
}
_SWITCHES = frozenset({"--keep-going", "--exit-on-failure", "--help", "-h", "--version"})
# Flags that go to every sidecar of a run file, since no key of it says the same.
FILE_PASSES = frozenset(
    {
        "--config-lenient",
        "--drain",
        "--engine",
        "--insecure-plaintext",
        "--log-as-json",
        "--namespace",
        "--no-learn-names",
        "--profile",
        "--runtime-path",
        "--sentry-address",
        "--threads",
        "--trust-anchors-file",
        "--trust-domain",
    }
)
# What keeps the user's own `.dapr` out of it.
_SAYING = {
    "config": frozenset({"--config"}),
    "resources-path": frozenset({"--resources-path", "--components-path"}),
}
USAGE = """usage: postern run [flags] [-- COMMAND [ARG…]]
       postern run -f FILE|FOLDER|- [--keep-going] [--runtime-path DIR] [--drain DURATION] [--log-as-json] …

Example: postern run --app-id cart --app-port 8080 -- python cart.py

Runs an app with its sidecar beside it. The app finds DAPR_HTTP_PORT, DAPR_GRPC_PORT and, for each --upstream cart,
CART_ADDR in its environment. Ctrl-C stops both in order, twice at once. The exit code is the app's own.
Without a command it runs the sidecar alone, for an app that is started elsewhere (by an IDE, say).
Without --config and --resources-path, .dapr/config.yaml and .dapr/components in the home folder are used, if they are there.

  -f, --run-file PATH   run many apps; a folder is searched for dapr.yaml, - is standard input
  --keep-going          a failing app does not stop the others

"""


class Asked(Struct, frozen=True, kw_only=True):
    """What the command line of `run` asks for. flags: the sidecar's, with long names."""

    flags: tuple[str, ...]
    command: tuple[str, ...]
    run_file: str | None
    keep_going: bool
    help: bool
    version: bool


def main(argv: Sequence[str]) -> int:
    """The whole command; returns the exit code."""
    try:
        asked = read(argv)
        if asked.help:
            sys.stdout.write(USAGE + help_text("postern run").partition("\n\n")[2])
            return 0
        if asked.version:
            sys.stdout.write(f"{VERSION}\n")
            return 0
        specs = _specs(asked, os.environ, random.Random())  # noqa: S311 - ports, not secrets
        for path in dict.fromkeys(path for spec in specs for path in spec.found):
            tell(f"· {path} is used, as no flag or key names another")
        width = max(len(spec.app_id) for spec in specs)
        as_json = specs[0].settings.log_json
        console = Console(sys.stdout.buffer, sys.stderr.buffer, os.environ, width=width, as_json=as_json)
        return asyncio.run(_run(specs, console, keep_going=asked.keep_going))
    except CliError as error:
        tell_error("postern run", error)
        return error.code
    except Exception as error:
        told = causes(error, (CliError,))
        if told is None:
            raise
        for cause in told:
            tell(f"postern run: {cause}")
        return FAILED


async def _run(specs: Sequence[AppSpec], console: Console, *, keep_going: bool) -> int:
    from proxy.cli.supervisor import Run  # noqa: PLC0415 - faults are told without it

    return await Run(specs, console=console, environment=os.environ, keep_going=keep_going).run()


def read(argv: Sequence[str]) -> Asked:
    """Part the arguments: ours, the sidecar's, and the app's command. Raises: UsageError."""
    flags: list[str] = []
    run_file: str | None = None
    switches: set[str] = set()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, text = word.partition("=")
        name = SHORT.get(name, name)
        if name in KUBERNETES_FLAGS:
            raise UsageError(f"{name} is {KUBERNETES}")
        if name in _SWITCHES:
            switches.add(name)
        elif name == "--run-file":
            run_file = text if equals else _next(rest, name)
        elif not name.startswith("-"):
            rest.insert(0, word)
            break
        else:
            flags.extend(_flag(name, f"{equals}{text}", rest))
    return Asked(
        flags=tuple(flags),
        command=tuple(rest),
        run_file=run_file,
        keep_going="--keep-going" in switches,
        help=bool(switches & {"--help", "-h"}),
        version="--version" in switches,
    )


def _flag(name: str, value: str, rest: list[str]) -> tuple[str, ...]:
    """One flag of the sidecar with its value; unknown ones are left to its parser, which suggests the right one."""
    flag = FLAGS.get(name.lstrip("-"))
    long = f"--{name.lstrip('-')}"
    if value or flag is None or flag.kind in {"switch", "unbuilt-switch"}:
        return (f"{long}{value}",)
    return (f"{long}={_next(rest, name)}",)


def _next(rest: list[str], name: str) -> str:
    if not rest or rest[0] == "--":
        raise UsageError(f"{name}: a value is missing")
    return rest.pop(0)


def _specs(asked: Asked, env: Mapping[str, str], chance: random.Random) -> tuple[AppSpec, ...]:
    if asked.run_file is None:
        return (single(asked, env, Path.cwd(), chance),)
    if asked.command:
        raise UsageError(
            "a command can't be combined with --run-file", hint="the run file holds the commands"
        )
    from proxy.cli.runfile import read_run_file  # noqa: PLC0415 - YAML for run files only

    ignored = [flag for flag in asked.flags if flag.partition("=")[0] not in FILE_PASSES]
    if ignored:
        raise UsageError(
            f"{', '.join(ignored)} can't be combined with --run-file", hint="write it into the run file"
        )
    return read_run_file(asked.run_file, flags=asked.flags, env=env, chance=chance)


def single(asked: Asked, env: Mapping[str, str], folder: Path, chance: random.Random) -> AppSpec:
    """The one app of a command line; without a command, its sidecar alone. Raises: UsageError, CliError."""
    flags = ("--profile=dev", *asked.flags)
    if not any(flag.startswith("--app-id=") for flag in flags):
        flags = (*flags, f"--app-id={app_id_of(folder)}")
    chosen = asked.command and [flag for flag in flags if flag.startswith("--app-port=")][-1:] == [
        "--app-port=0"
    ]
    if chosen:
        flags = (*flags, f"--app-port={free_ports(1, chance)[0]}")
    found = _found(flags, env)
    flags = (*flags, *(f"--{name}={path}" for name, path in found.items()))
    try:
        settings = parse(flags, env)
    except ConfigError as error:
        raise UsageError("\n  ".join(error.faults)) from error
    return AppSpec(
        app_id=settings.app_id,
        command=asked.command,
        folder=folder,
        flags=flags,
        settings=settings,
        chosen_port=bool(chosen),
        found=tuple(found.values()),
    )


def _found(flags: Sequence[str], env: Mapping[str, str]) -> Mapping[str, Path]:
    """By flag, what is taken from the user's `.dapr` where the flag was not given, as `dapr run` does."""
    given = {flag.partition("=")[0] for flag in flags}
    found = {"config": home_config(env), "resources-path": home_resources(env)}
    return {name: path for name, path in found.items() if path is not None and not given & _SAYING[name]}


def app_id_of(folder: Path) -> str:
    """The app-id of an app that was given none: its folder's name, in letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", folder.name).strip("-")[:63].strip("-") or "app"
