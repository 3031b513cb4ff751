"""What the shell offers after Tab: the flags of commands that run without the framework, their values, and the app-ids that run here.

Loaded only for completion, except for the two functions that list apps.
"""

import inspect
import os
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from nameresolution.errors import NameResolutionError
from nameresolution.host_registry import HostRegistry
from nameresolution.runtime_root import choose
from proxy.cli.run import SHORT
from proxy.cli.wait import FLAGS as WAIT_FLAGS
from proxy.settings.flags import FLAGS, Flag

COMPLETING = "_POSTERN_COMPLETE"  # set by the script that `postern --show-completion` prints
_VALUES = {
    "app-protocol": ("http", "https", "h2c", "grpc", "grpcs"),
    "engine": ("auto", "native", "portable"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
    "profile": ("dev", "production", "daprd"),
}


def app_ids() -> list[str]:
    """The app-ids that run in this runtime root; none where it can't be read."""
    try:
        return sorted({entry.app_id for entry in HostRegistry(choose(None, os.environ)).entries()})
    except (NameResolutionError, OSError):
        return []


def instances() -> list[str]:
    """The instance ids that run in this runtime root; none where it can't be read."""
    try:
        return sorted(entry.instance for entry in HostRegistry(choose(None, os.environ)).entries())
    except (NameResolutionError, OSError):
        return []


def listed(name: str) -> Callable[..., None]:
    """A command of the framework that stands for one that runs without it, with that one's flags."""

    def command(**_: object) -> None: ...

    parameters = list(_parameters(name))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what the framework reads
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameters(name: str) -> Iterable[inspect.Parameter]:
    if name in {"run", "sidecar"}:
        short = {long: letter for letter, long in SHORT.items()} if name == "run" else {}
        for flag in FLAGS.values():
            names = (f"--{flag.name}", *((short[f"--{flag.name}"],) if f"--{flag.name}" in short else ()))
            yield _option(flag.name, names, flag)
    if name == "run":
        yield _option("run-file", ("--run-file", "-f"))
        yield _option("keep-going", ("--keep-going",), switch=True)
    if name == "wait":
        yield _parameter("waited", str, typer.Argument(autocompletion=app_ids))
        for long in WAIT_FLAGS:
            if long.startswith("--"):
                yield _option(long[2:], (long,))


def _option(
    name: str, names: tuple[str, ...], flag: Flag | None = None, *, switch: bool = False
) -> inspect.Parameter:
    about = flag.about if flag is not None else ""
    is_switch = switch or (flag is not None and flag.kind in {"switch", "unbuilt-switch"})
    if is_switch:
        return _parameter(name, bool, typer.Option(*names, help=about))
    values = app_ids if name == "app-id" else _offering(_VALUES.get(name, ()))
    return _parameter(name, str, typer.Option(*names, help=about, autocompletion=values))


def _offering(values: tuple[str, ...]) -> Callable[[], list[str]]:
    return lambda: list(values)


def _parameter(name: str, kind: type, how: object) -> inspect.Parameter:
    return inspect.Parameter(
        name.replace("-", "_"),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, how],
    )
