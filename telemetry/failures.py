"""What ended a process, in lines for people: failures of the environment (files, ports, disks) never need a traceback. Pure."""


def leaves(error: BaseException) -> list[BaseException]:
    """The errors themselves, out of the groups that tasks wrap them in; each once."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found = [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return list({str(leaf) + type(leaf).__name__: leaf for leaf in found}.values())


def causes(error: BaseException, expected: tuple[type[BaseException], ...]) -> list[str] | None:
    """What went wrong, a line each, where everything in `error` comes from the system (OSError) or is one of `expected`; else None.

    None asks for the traceback: what is left is a fault of the program.
    """
    found = leaves(error)
    if not all(isinstance(leaf, (OSError, *expected)) for leaf in found):
        return None
    return [_line(leaf) for leaf in found]


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
