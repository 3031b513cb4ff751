"""Dapr's folder in the user's home, as `dapr init` and users fill it: what its commands take where no flag names anything."""

from collections.abc import Mapping
from pathlib import Path

from proxy.cli.errors import CliError


def dapr_folder(explicit: str | None, env: Mapping[str, str]) -> Path:
    """Dapr's folder, as its commands choose it. Raises: CliError."""
    chosen = explicit or env.get("DAPR_RUNTIME_PATH") or env.get("HOME")
    if not chosen:
        raise CliError("no home folder is known", hint="pass --dapr-path")
    return Path(chosen).expanduser().absolute() / ".dapr"


def config_in(folder: Path) -> Path | None:
    """The Configuration that is taken from a folder named `.dapr`, be it the user's or an app's."""
    return _there(folder / "config.yaml", is_folder=False)


def resources_of(app_folder: Path) -> Path | None:
    """The folder of resources that an app brings."""
    return _there(app_folder / ".dapr" / "resources", is_folder=True)


def home_config(env: Mapping[str, str]) -> Path | None:
    """The user's Configuration."""
    home = _home(env)
    return None if home is None else config_in(home)


def home_resources(env: Mapping[str, str]) -> Path | None:
    """The user's folder of resources, which Dapr calls components."""
    home = _home(env)
    return None if home is None else _there(home / "components", is_folder=True)


def _home(env: Mapping[str, str]) -> Path | None:
    try:
        return dapr_folder(None, env)
    except CliError:
        return None  # no home, nothing in it


def _there(path: Path, *, is_folder: bool) -> Path | None:
    return path if (path.is_dir() if is_folder else path.is_file()) else None
