"""Who a peer is: maps its verified leaf to a SPIFFE ID, and that to the caller that access rules judge. Pure.

The chain, its times and its root were verified in the handshake.
"""

from policies.rules.access import AccessRules
from policies.rules.caller import Caller
from proxy.contract.engine import PeerLeaf, RefusedLeafError
from sentry.errors import IdentityError
from sentry.spiffe import SpiffeId, judge_leaf


def peer_leaf(der: bytes, as_server: bool) -> PeerLeaf:
    """Whose a peer's leaf is, in the form that engines compare, and until when; `as_server`: whether the peer is the server.

    Raises: RefusedLeafError.
    """
    try:
        leaf = judge_leaf(der, as_server=as_server)
    except IdentityError as error:
        raise RefusedLeafError(
            "no-workload", f"the peer's certificate has no workload SPIFFE ID: {error}"
        ) from error
    return PeerLeaf(str(leaf.spiffe_id), leaf.ends_at)


def admitted_leaf(der: bytes, as_server: bool, rules: AccessRules) -> PeerLeaf:
    """As `peer_leaf`, for those alone whose trust domain the rules in force know; of a server, its whole id is compared later.

    Raises: RefusedLeafError.
    """
    leaf = peer_leaf(der, as_server)
    trust_domain = SpiffeId.parse(leaf.spiffe_id).trust_domain
    if not as_server and not rules.trusts(trust_domain):
        raise RefusedLeafError(
            "trust-domain",
            f"{leaf.spiffe_id} is in the trust domain {trust_domain}, which is neither our own nor named by an entry of our "
            "access policy",
        )
    return leaf


def caller_of(peer: str | None) -> Caller | None:
    """The caller behind a peer's id; None for a peer without one."""
    if peer is None:
        return None
    spiffe_id = SpiffeId.parse(peer)
    return Caller(trust_domain=spiffe_id.trust_domain, namespace=spiffe_id.namespace, app_id=spiffe_id.app_id)
