"""Who a peer is: its verified leaf to a SPIFFE id, its id to the caller that access rules judge. Pure.

The chain, its times and its root were verified in the handshake.
"""

from policies.access import Caller
from proxy.plan import PeerLeaf
from sentry.errors import IdentityError
from sentry.spiffe import SpiffeId, judge_leaf


def peer_leaf(der: bytes, as_server: bool) -> PeerLeaf:
    """Whose a peer's leaf is, in the form that engines compare, and until when; `as_server`: whether the peer is the server.

    Raises: ValueError.
    """
    try:
        leaf = judge_leaf(der, as_server=as_server)
    except IdentityError as error:
        raise ValueError(str(error)) from error
    return PeerLeaf(str(leaf.spiffe_id), leaf.ends_at)


def caller_of(peer: str | None) -> Caller | None:
    """The caller behind a peer's id; None for a peer without one."""
    if peer is None:
        return None
    spiffe_id = SpiffeId.parse(peer)
    return Caller(trust_domain=spiffe_id.trust_domain, namespace=spiffe_id.namespace, app_id=spiffe_id.app_id)
