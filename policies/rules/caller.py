"""Who calls: what rules of every kind judge a caller by."""

from typing import NamedTuple


class Caller(NamedTuple):
    """The parts of a verified SPIFFE ID `spiffe://<trust_domain>/ns/<namespace>/<app_id>`."""

    trust_domain: str
    namespace: str
    app_id: str

    @property
    def principal(self) -> str:
        """The whole of it."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/{self.app_id}"
