"""setuptools, and what pyproject.toml can't say about the native engine: when it may be missing, and that no stale one stays behind."""

import os
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401 - the rest of the backend (PEP 517, PEP 660)
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.egg_info import manifest_maker

REQUIRED = "POSTERN_REQUIRE_NATIVE"
ENGINE = Path(__file__).parents[1]

# Which files the source distribution has beside the packages: setuptools would look at the top, and pyproject.toml can't say where else.
manifest_maker.template = "proxy/engine/native/crates/MANIFEST.in"

Settings = dict[str, Any] | None


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """As setuptools does. Raises RuntimeError where the native engine was demanded and could not be built."""
    for stale in ENGINE.glob("_native.*.so"):
        stale.unlink()
    made: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _demand(any(ENGINE.glob("_native.*.so")))
    return made


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """As setuptools does. Raises RuntimeError where the native engine was demanded and could not be built."""
    made: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    with zipfile.ZipFile(Path(wheel_directory) / made) as wheel:
        _demand(
            any(
                name.startswith("proxy/engine/native/_native.") and name.endswith(".so")
                for name in wheel.namelist()
            )
        )
    return made


def _demand(is_there: bool) -> None:
    if not is_there and os.environ.get(REQUIRED) == "1":
        raise RuntimeError(
            f"the native engine was not built, and {REQUIRED}=1 demands it: what cargo said stands above "
            "(it needs cargo, https://rustup.rs, and a C compiler)"
        )
