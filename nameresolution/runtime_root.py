"""Where this user's sidecars meet: the private directory that holds the host registry, sockets and keys."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from nameresolution.errors import RuntimeRootError

_PRIVATE = 0o700


def runtime_root(explicit: str | None, env: Mapping[str, str]) -> Path:
    """The runtime root, made with mode 0700 if absent: the explicit path, else POSTERN_HOME, else by XDG.

    Raises: RuntimeRootError if it is not a directory, belongs to another user or lets others in.
    Source: XDG Base Directory Specification 0.8 (relative values are ignored).
    """
    path = choose(explicit, env)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=_PRIVATE, exist_ok=True)
        facts = path.stat()
    except OSError as error:
        raise RuntimeRootError(
            path, error.strerror or str(error), "choose another with --runtime-path"
        ) from error
    check(path, facts, os.geteuid())
    return path


def choose(explicit: str | None, env: Mapping[str, str]) -> Path:
    """The path of the runtime root, absolute; touches nothing.

    Raises: RuntimeRootError if nothing names one and the user has no home.
    """
    chosen = explicit or env.get("POSTERN_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    runtime_dir = env.get("XDG_RUNTIME_DIR", "")
    if runtime_dir.startswith("/"):
        return Path(runtime_dir) / "postern"
    state_home = env.get("XDG_STATE_HOME", "")
    if state_home.startswith("/"):
        return Path(state_home) / "postern"
    return _home(env) / ".local" / "state" / "postern"


def check(path: Path, facts: os.stat_result, user_id: int) -> None:
    """Refuse a root that others could read or write.

    Raises: RuntimeRootError.
    """
    if not stat.S_ISDIR(facts.st_mode):
        raise RuntimeRootError(path, "is not a directory", "choose another with --runtime-path")
    if facts.st_uid != user_id:
        problem = f"belongs to user {facts.st_uid}, not to {user_id}"
        raise RuntimeRootError(path, problem, "choose another with --runtime-path")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077:
        problem = f"has mode {mode:04o}, so others can reach its keys, expected 0700"
        advice = f"choose another with --runtime-path; if it is postern's alone: chmod 700 {path}"
        raise RuntimeRootError(path, problem, advice)


def _home(env: Mapping[str, str]) -> Path:
    home = env.get("HOME", "")
    if home.startswith("/"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        problem = f"user {os.geteuid()} has no home directory"
        raise RuntimeRootError(None, problem, "set --runtime-path or POSTERN_HOME") from None
