"""`postern init` and `postern uninstall`: our sidecar where Dapr's own commands look for theirs, and what was there before.

Dapr's commands always start `.dapr/bin/daprd` in the user's home, or in the folder that DAPR_RUNTIME_PATH or their --runtime-path names.
"""

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nameresolution.errors import RuntimeRootError
from nameresolution.runtime_root import runtime_root
from proxy.cli.dapr_home import dapr_folder
from proxy.cli.errors import CliError, UsageError
from proxy.cli.options import RuntimePath
from proxy.cli.tables import tell

_MARK = b"#!/bin/sh\n# postern's sidecar for Dapr's commands"
_SCRIPT = """#!/bin/sh
# postern's sidecar for Dapr's commands; `postern uninstall` brings back what was here before.
exec {ours} "$@"
"""
# What `dapr init --slim` writes: Dapr's commands pass both to each sidecar, and refuse to start where the folder is missing.
_CONFIG = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: daprConfig
spec: {}
"""
_BACKUP = "daprd.before-postern"

DaprPath = Annotated[
    str | None,
    typer.Option(
        "--dapr-path", help="the folder that holds Dapr's .dapr (the home folder)", envvar="DAPR_RUNTIME_PATH"
    ),
]


def init(
    shim: Annotated[
        bool, typer.Option("--shim", help="have Dapr's commands (dapr run …) start postern as their daprd")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="also where Dapr's own daprd is, which is kept for uninstall")
    ] = False,
    slim: Annotated[
        bool, typer.Option("--slim", "-s", help="changes nothing: no container is ever started")
    ] = False,
    dapr_path: DaprPath = None,
    runtime_path: RuntimePath = None,
) -> None:
    """Prepare the folder where sidecars meet; with --shim, have Dapr's commands start postern.

    Example: postern init --shim
    """
    if force and not shim:
        raise UsageError("--force is for --shim")
    try:
        root = runtime_root(runtime_path, os.environ)
    except RuntimeRootError as error:
        raise CliError(str(error)) from error
    tell(f"✓ {root}: sidecars meet here; nothing else has to be installed for `postern run`")
    if shim:
        folder = dapr_folder(dapr_path, os.environ)
        for line in install(folder, our_daprd(), force=force):
            tell(f"✓ {line}")


def uninstall(
    dapr_path: DaprPath = None,
) -> None:
    """Take away what `postern init --shim` put, and bring back what was there before.

    Example: postern uninstall
    """
    tell(f"✓ {remove(dapr_folder(dapr_path, os.environ))}")


def our_daprd() -> Path:
    """The program `daprd` of this installation. Raises: CliError."""
    found = Path(sys.executable).parent / "daprd"
    if not found.is_file():
        raise CliError(f"{found}: postern's daprd is missing", hint="install postern anew")
    return found


def install(folder: Path, ours: Path, *, force: bool) -> tuple[str, ...]:
    """Put the shim into Dapr's folder, with what its commands need beside it; what was done, for people. Raises: CliError, OSError."""
    done = []
    shim = folder / "bin" / "daprd"
    backup = shim.with_name(_BACKUP)
    (folder / "components").mkdir(parents=True, exist_ok=True)
    shim.parent.mkdir(exist_ok=True)
    if not _is_there(folder / "config.yaml"):
        _write_new(folder / "config.yaml", _CONFIG)
    if _is_there(shim) and not _is_ours(shim):
        if not force:
            raise CliError(
                f"{shim} is not postern's: Dapr's own daprd, it seems",
                hint=f"--force keeps it as {_BACKUP}, and `postern uninstall` brings it back",
            )
        if _is_there(backup):
            raise CliError(f"{backup} is there already", hint="remove the one of the two that is not wanted")
        shim.rename(backup)
        done.append(f"{backup}: what was here before")
    draft = shim.with_name(f".daprd.{os.getpid()}")
    try:
        _write_new(draft, _SCRIPT.format(ours=shlex.quote(str(ours))))
        draft.chmod(0o755)
        draft.rename(shim)  # never half a program: one may be starting
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return (*done, f"{shim}: Dapr's commands start postern from now on, in the manner of daprd")


def remove(folder: Path) -> str:
    """Take the shim away; what was done, for people. Raises: CliError, OSError."""
    shim = folder / "bin" / "daprd"
    backup = shim.with_name(_BACKUP)
    if not _is_ours(shim):
        problem = "is not postern's" if _is_there(shim) else "is not there"
        raise CliError(f"{shim} {problem}: nothing to take away")
    if _is_there(backup):
        backup.rename(shim)
        return f"{shim}: the one of before is back"
    shim.unlink()
    return f"{shim}: removed; {folder}/config.yaml and components stay, they may be yours by now"


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there. Raises OSError for one that is, and for a link, which might lead to another's."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _is_ours(path: Path) -> bool:
    try:
        if not path.is_file():
            return False  # a pipe would be waited for
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False
