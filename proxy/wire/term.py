"""How long a connection between proxies may live: until the first of the two sides' certificates expires.

TLS itself looks at a certificate in the handshake only (RFC 8446 §4.4.2), and connections are kept for as long as they are used.
"""

from msgspec import Struct

from proxy.contract.engine import Limits


class Term(Struct, frozen=True):
    """By the wall clock, in epoch seconds: when a connection takes no more calls, and when it is closed with those that are left."""

    drain_at: float
    end_at: float

    @classmethod
    def until(cls, ends_at: float, now: float, limits: Limits) -> "Term":
        """The term under certificates that end at `ends_at`."""
        lead_s = min(limits.expiry_lead_s, max(0.0, ends_at - now) / 4)
        return cls(ends_at - lead_s, ends_at + limits.expiry_skew_s)
