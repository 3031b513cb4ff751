"""Which postern this is."""

from importlib.util import find_spec

# The only place of it: pyproject.toml reads it here, the crates have none. A constant, since asking the package's metadata takes longer
# than all the rest of a start.
VERSION = "0.1.0"

# Of the daprd whose flags, files and wire we keep to.
DAPR_VERSION = "1.18.3"


def runtime_version(*, as_daprd: bool) -> str:
    """What a sidecar calls its version.

    Dapr's own commands and SDKs leave out what a runtime of that version doesn't know; what follows the `+` orders nothing
    (SemVer 2.0.0 §10).
    """
    return f"{DAPR_VERSION}+postern.{VERSION}" if as_daprd else VERSION


def has_native() -> bool:
    """Whether the native engine is part of this installation; it may still not load."""
    return find_spec("proxy.engine.native._native") is not None


def build_info() -> str:
    """Version, engines and interpreter, a line each."""
    import platform  # noqa: PLC0415 - `--version` does without

    engines = "native, portable" if has_native() else "portable"
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"Version: {VERSION}\nEngines: {engines}\nInterpreter: {interpreter}\nPlatform: {platform.platform()}"
    )
