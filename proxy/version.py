"""Which postern this is."""

VERSION = "0.1.0"  # as in pyproject.toml; a constant, since asking the package's metadata takes longer than all the rest


def build_info() -> str:
    """Version, engines and interpreter, a line each."""
    import platform  # noqa: PLC0415 - `--version` does without
    from importlib.util import find_spec  # noqa: PLC0415

    engines = "portable, native" if find_spec("proxy._native") is not None else "portable"
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"Version: {VERSION}\nEngines: {engines}\nInterpreter: {interpreter}\nPlatform: {platform.platform()}"
    )
