"""Whether the extension that is here is the one that this Python code was written for: an older one would fail every decision.

Change the stub and `SEAM` changes, here and in `crates/binding/src/lib.rs`: a test says to what.
"""

from typing import Final

#: What of `_native.pyi` is more than comments, as a hash: every call and every tuple that goes between the two.
SEAM: Final = "970bdd008146e3b8"
REBUILD: Final = "rebuild it with `pip install .` (`make native-dev` in a checkout)"


class StaleEngineError(ImportError):
    """The extension was built from other sources than this Python code."""


def check() -> None:
    """Raises: ImportError where there is no extension, or it is not of these sources (StaleEngineError)."""
    from proxy.engine.native import _native  # noqa: PLC0415 - an error to be told, not one of whoever imports this

    built = getattr(_native, "seam", None)
    if built != SEAM:
        raise StaleEngineError(f"it was built from other sources than this Python code: {REBUILD}")
