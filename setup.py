"""What pyproject.toml can't say of the native engine's build: when it may fail, and that no stale one stays behind."""

import os
from pathlib import Path

from setuptools import setup
from setuptools_rust import RustExtension
from setuptools_rust.build import build_rust

REQUIRED = "POSTERN_REQUIRE_NATIVE"


class BuildNative(build_rust):
    """Builds the extension; with POSTERN_REQUIRE_NATIVE=1 a failure is an error. Mutable state: what was built."""

    def run(self) -> None:
        """Build all; what an editable install holds from an earlier build goes when this one fails."""
        self._built: set[str] = set()
        for extension in self.extensions:
            extension.optional = extension.optional and os.environ.get(REQUIRED) != "1"
        try:
            super().run()
        finally:
            if self.inplace:
                for extension in self.extensions:
                    if extension.name not in self._built:
                        Path(self.get_dylib_ext_path(extension, extension.name)).unlink(missing_ok=True)

    def run_for_extension(self, ext: RustExtension) -> None:
        """Build one."""
        super().run_for_extension(ext)
        self._built.add(ext.name)


setup(cmdclass={"build_rust": BuildNative})
