"""Where the rules in force are written, for people; frozen values."""

from msgspec import Struct


class Written(Struct, frozen=True, kw_only=True):
    """One policy or entry of a document.

    policy: the key that it is written under, such as `policies.timeouts` or `targets.apps`; name: its own. resource: of the document, by
    name. at: as `file:line`.
    """

    policy: str
    name: str
    resource: str
    at: str
