"""The engines that an integration test takes as a parameter."""

import pytest

from proxy.settings.version import has_native

needs_native = pytest.mark.skipif(
    not has_native(), reason="the native engine is not part of this installation"
)
ENGINES = ("portable", pytest.param("native", marks=needs_native))
