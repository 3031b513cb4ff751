"""The errors of the postern command: a message for people and an exit code."""

from proxy.errors import ProxyError

FAILED, MISUSED, PARTLY = 1, 2, 3
# What Dapr's commands call a cluster by, and why we refuse it.
KUBERNETES_FLAGS = frozenset({"-k", "--kubernetes"})
KUBERNETES = "for Kubernetes, which is not built yet"


class CliError(ProxyError):
    """A command can't do what it was asked. `code` is the exit code; `hint` says what to try next."""

    def __init__(self, message: str, *, hint: str = "", code: int = FAILED) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.code = code


class UsageError(CliError):
    """The command was written wrongly."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code=MISUSED)
