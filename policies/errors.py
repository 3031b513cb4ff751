"""What can be wrong with a policy or configuration document, and where."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace


class Fault(Struct, frozen=True, kw_only=True):
    """One thing wrong in one document.

    `line` and `column` count from 1; 0 means that the fault concerns the whole file. `is_lenient` marks a fault
    that `--config-lenient` may turn into a warning, because ignoring it can't let anybody in.
    """

    path: Path
    line: int
    field: str
    problem: str
    column: int = 0
    is_lenient: bool = False

    def __str__(self) -> str:
        place = str(self.path)
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return f"{place}: {self.field}: {self.problem}" if self.field else f"{place}: {self.problem}"


def advised(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Faults for whoever did not ask for leniency: those that it would forgive say so."""
    advice = "; --config-lenient starts without it"
    return tuple(
        replace(fault, problem=fault.problem + advice) if fault.is_lenient else fault for fault in faults
    )


class PolicyError(Exception):
    """Base of everything that this package raises."""


class DocumentError(PolicyError):
    """One or more documents can't be used; `faults` holds every reason at once, in the order of reading."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        """Keep `faults`, of which there is at least one."""
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class UnreadError(DocumentError):
    """The documents were not read, through no fault of theirs: worth a retry."""


class DurationError(PolicyError, ValueError):
    """A text is not a duration."""


class CodesError(PolicyError, ValueError):
    """A text is not a list of status codes."""
