"""What deciders are told of names that have no endpoints, for answers."""

from typing import Protocol

from proxy.deciding.callee import Callee


class Heard(Protocol):
    """What was heard of names that have no endpoints, for answers."""

    def absent(self, callee: Callee) -> str | None:
        """Since when a known name has no instance that takes calls, and who served it; empty if none did.

        None where it was not heard of, or will be found.
        """

    def spellings(self, callee: Callee) -> tuple[Callee, ...]:
        """Those whom a name in lower case may mean where nobody is known of exactly that name."""

    def nearest_services(self, service: str) -> tuple[str, ...]:
        """Services that resemble one that nobody serves."""


class NothingHeard:
    """Of nobody."""

    def absent(self, callee: Callee) -> str | None:
        """See Heard."""

    def spellings(self, callee: Callee) -> tuple[Callee, ...]:
        """See Heard."""
        return ()

    def nearest_services(self, service: str) -> tuple[str, ...]:
        """See Heard."""
        return ()
