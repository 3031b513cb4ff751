"""What handlers need from other servers, as deciders see it: values that the control plane fetched before, never a call. Frozen."""

from typing import Protocol

from msgspec import Struct

from policies.rules.pipelines import Bearer, ClientCredentials
from proxy.deciding.bearer import Key


class KeysState(Struct, frozen=True):
    """An issuer's keys; None until they were had for the first time. error: why they are not had, once that is known.

    may_renew: newer ones may be asked for, or are on their way.
    """

    keys: tuple[Key, ...] | None = None
    error: str = ""
    may_renew: bool = False


class TokenState(Struct, frozen=True):
    """A token as a header's value; None until it was had, and once it has ended. error: why there is none, once that is known."""

    value: bytes | None = None
    error: str = ""


class Remote(Protocol):
    """What was fetched. A Hold for `key` of a middleware has the control plane fetch, and is woken by news."""

    def keys(self, middleware: Bearer) -> KeysState:
        """Those of its issuer."""

    def token(self, middleware: ClientCredentials) -> TokenState:
        """The one in force."""


class NothingFetched:
    """Of nobody."""

    def keys(self, middleware: Bearer) -> KeysState:
        """See Remote."""
        return KeysState()

    def token(self, middleware: ClientCredentials) -> TokenState:
        """See Remote."""
        return TokenState()
