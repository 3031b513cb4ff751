"""The exceptions of this package; each names what was met and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class NameResolutionError(Exception):
    """Base of everything that this package raises."""


class RuntimeRootError(NameResolutionError):
    """The runtime root cannot be made, or is not private to this user."""

    def __init__(self, path: Path | None, problem: str, fix: str) -> None:
        super().__init__(
            f"runtime root {path}: {problem}; {fix}" if path else f"runtime root: {problem}; {fix}"
        )
        self.path = path
        self.problem = problem
        self.fix = fix


class RegistrationError(NameResolutionError):
    """An entry of the host registry cannot be written or locked."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"host registry {path}: {problem}")
        self.path = path
        self.problem = problem


class StaticFileError(NameResolutionError):
    """The file of fixed endpoints cannot be read or is not well formed; holds every fault found."""

    def __init__(self, path: Path, faults: Iterable[str]) -> None:
        self.path = path
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{path}: {fault}" for fault in self.faults))


class UnknownComponentError(NameResolutionError):
    """A `nameResolution.component` that has no constructor here. `at`: FILE:LINE, where known."""

    def __init__(self, component: str, known: Iterable[str], planned: Iterable[str], at: str = "") -> None:
        self.component = component
        self.known = tuple(sorted(known))
        detail = "is not built yet" if component in tuple(planned) else "is not a name resolution component"
        super().__init__(
            _placed(
                at, f"nameResolution.component {component!r} {detail}, expected {' or '.join(self.known)}"
            )
        )


class ComponentConfigurationError(NameResolutionError):
    """A `nameResolution.configuration` key is missing, unknown or of the wrong form. `at`: as above."""

    def __init__(self, component: str, field: str, problem: str, at: str = "") -> None:
        super().__init__(_placed(at, f"nameResolution.configuration of {component!r}: {field}: {problem}"))
        self.component = component
        self.field = field
        self.problem = problem


class DatabaseError(NameResolutionError):
    """The database of `component: sqlite` can't be opened, read or written just now."""

    def __init__(self, where: str, problem: str, fix: str) -> None:
        super().__init__(f"{where}: {problem}; {fix}" if fix else f"{where}: {problem}")
        self.where = where
        self.problem = problem
        self.fix = fix


class ConsulError(NameResolutionError):
    """A Consul agent can't be asked, or refused."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"consul at {where}: {problem}")
        self.where = where
        self.problem = problem


class AnnouncementError(NameResolutionError):
    """An instance that cannot be announced as the source would have it."""

    def __init__(self, field: str, problem: str, source: str = "mdns") -> None:
        super().__init__(f"cannot announce over {source}: {field}: {problem}")
        self.field = field


def _placed(at: str, text: str) -> str:
    return f"{at}: {text}" if at else text
