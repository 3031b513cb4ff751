"""Why a measurement could not be made."""


class BenchError(Exception):
    """Base of everything raised here."""


class ToolMissingError(BenchError):
    """Programs or packages that this machine lacks; the message is the one line to run."""

    def __init__(self, names: tuple[str, ...], remedy: str) -> None:
        self.names = names
        super().__init__(f"missing: {', '.join(names)}; run: {remedy}")


class SlowEngineError(BenchError):
    """The native engine was not optimised: its figures would mean nothing."""

    def __init__(self) -> None:
        super().__init__(
            "the native engine is the one of `make native-dev`; build a release: .venv/bin/python -m pip install -e ."
        )


class WrongAnswerError(BenchError):
    """A target answers, but not with what the upstream sent: its speed would mean nothing."""

    def __init__(self, target: str, case: str, met: str) -> None:
        self.target = target
        self.case = case
        super().__init__(f"{target}, {case}: expected the upstream's answer, got {met}")


class LoadError(BenchError):
    """The load generator failed, or its calls did."""
