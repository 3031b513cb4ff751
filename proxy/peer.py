"""A peer's verified leaf -> who it is. Pure.

The chain, its times and its root were verified in the handshake. Here the SPIFFE rules are applied, the trust
domain is held against those that this proxy knows, and, towards a callee, the name against the one dialled.
"""

from policies.access import Caller
from sentry.errors import IdentityError
from sentry.spiffe import SpiffeId, verify_leaf


def caller_id(der: bytes, trust_domains: frozenset[str] | None = None) -> SpiffeId:
    """The id of a client that connected to us; `trust_domains` None lets in every domain under the anchors.

    Raises: IdentityError.
    """
    spiffe_id = verify_leaf(der, as_server=False)
    check_trust_domain(spiffe_id, trust_domains)
    return spiffe_id


def caller_of(spiffe_id: SpiffeId) -> Caller:
    """The caller that access rules judge."""
    return Caller(trust_domain=spiffe_id.trust_domain, namespace=spiffe_id.namespace, app_id=spiffe_id.app_id)


def callee_id(
    der: bytes, *, app_id: str, namespace: str, trust_domains: frozenset[str] | None = None
) -> SpiffeId:
    """The id of a server that we dialled for `app_id` in `namespace`. Raises: IdentityError."""
    spiffe_id = verify_leaf(der, as_server=True)
    if (spiffe_id.app_id, spiffe_id.namespace) != (app_id, namespace):
        raise IdentityError(
            "callee", f"peer is {spiffe_id}, expected app-id {app_id} in namespace {namespace}"
        )
    check_trust_domain(spiffe_id, trust_domains)
    return spiffe_id


def check_trust_domain(spiffe_id: SpiffeId, trust_domains: frozenset[str] | None) -> None:
    """Refuse an id of a domain that is not listed. Raises: IdentityError."""
    if trust_domains is not None and spiffe_id.trust_domain not in trust_domains:
        raise IdentityError(
            "trust-domain", f"peer {spiffe_id} is of a trust domain that is not accepted here"
        )
