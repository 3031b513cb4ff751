"""What handlers need from other servers, as deciders see it: values that the control plane fetched before, never a call. Frozen."""

from typing import Final, Protocol

from msgspec import Struct

from policies.rules.pipelines import ClientCredentials, OAuth2
from policies.rules.tokens import KeySource
from proxy.deciding.bearer import Key
from proxy.deciding.login import Logins

REMOTE_HOLD_S: Final = 5.0  # for keys and tokens that are on their way


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


class LoginState(Struct, frozen=True):
    """What came of a browser's code: the id of its session, and its life in seconds; neither until it was exchanged. error: why not."""

    session: str = ""
    life_s: int = 0
    error: str = ""


class Remote(Protocol):
    """What was fetched. A Hold for `key` of a middleware has the control plane fetch, and is woken by news."""

    @property
    def logins(self) -> Logins:
        """What begins and recognises logins."""

    def keys(self, source: KeySource) -> KeysState:
        """Those of an issuer."""

    def token(self, middleware: ClientCredentials) -> TokenState:
        """The one in force."""

    def session(self, middleware: OAuth2, session: str) -> bytes | None:
        """The header's value of a session in force."""

    def login(self, middleware: OAuth2, code: str) -> LoginState:
        """What came of a code. A Hold for `key` of the middleware, a line break and the code has it exchanged."""


class NothingFetched:
    """Of nobody."""

    logins = Logins(b"", str, float)

    def keys(self, source: KeySource) -> KeysState:
        """See Remote."""
        return KeysState()

    def token(self, middleware: ClientCredentials) -> TokenState:
        """See Remote."""
        return TokenState()

    def session(self, middleware: OAuth2, session: str) -> bytes | None:
        """See Remote."""
        return None

    def login(self, middleware: OAuth2, code: str) -> LoginState:
        """See Remote."""
        return LoginState()
