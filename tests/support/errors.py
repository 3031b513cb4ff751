"""What can go wrong with the processes and namespaces that tests start."""


class SupportError(Exception):
    """Base of everything raised here."""


class ProcessEndedError(SupportError):
    """A process ended before it did what was waited for; `output` is the end of what it said."""

    def __init__(self, name: str, code: int | None, output: str) -> None:
        self.name = name
        self.code = code
        self.output = output
        super().__init__(f"{name} ended with code {code}; its output ends:\n{output}")


class NotReadyError(SupportError):
    """A process runs, but what was waited for did not happen in time. `state`: what it does instead."""

    def __init__(self, name: str, waited_for: str, timeout_s: float, state: str, output: str) -> None:
        self.name = name
        self.waited_for = waited_for
        self.timeout_s = timeout_s
        self.state = state
        self.output = output
        super().__init__(
            f"{name}: no {waited_for} within {timeout_s:g} s ({state}); its output ends:\n{output}"
        )


class LeftoverError(SupportError):
    """Processes outlived the scope that started them; they were killed."""

    def __init__(self, leftovers: tuple[str, ...]) -> None:
        self.leftovers = leftovers
        super().__init__("processes were left over: " + "; ".join(leftovers))


class HttpSyntaxError(SupportError):
    """A peer sent what is no HTTP/1.1 message, or ended one in its middle."""


class NamespaceError(SupportError):
    """An `ip` command failed."""

    def __init__(self, command: tuple[str, ...], output: str) -> None:
        self.command = command
        super().__init__(f"`{' '.join(command)}` failed: {output.strip()}")
