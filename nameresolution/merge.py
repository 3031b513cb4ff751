"""How the reports of several sources on one name become one set of endpoints; pure.

The rules: an entry of the static file wins outright; all else is merged without duplicates: by address, and by the
instance id where an earlier source named it (within one source an id is only a claim: it must not hide another's
address); endpoints of a foreign mesh or namespace are left out. Without mTLS, an app that nobody has in the namespace
asked for is taken from any: nothing there proves a namespace (as with Dapr's mDNS).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from nameresolution.resolver import (
    MESH_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    AppName,
    Endpoint,
    EndpointSet,
    SourceFailure,
)

FILE_SOURCE = "file"


class Own(Struct, frozen=True, kw_only=True):
    """Who asks. `mesh` is the hash of our trust anchors, "" without mTLS, None while not known (nothing is foreign).

    `any_namespace`: nobody is in the one asked for, and none can be proven.
    """

    instance: str = ""
    mesh: str | None = None
    any_namespace: bool = False


class Report(Struct, frozen=True, kw_only=True):
    """The latest word of one source on one name. `endpoints` beside a `failure` are the last good ones, now stale."""

    source: str
    endpoints: tuple[Endpoint, ...] = ()
    failure: SourceFailure | None = None
    pending: bool = False


def merge(name: AppName, reports: Iterable[Report], own: Own) -> EndpointSet:
    """The set that these reports, in order of precedence, amount to."""
    reports = tuple(reports)
    own = replace(own, any_namespace=own.mesh == "" and not any(is_of_use(one, name, own) for one in reports))
    decisive = next((report for report in reports if report.source == FILE_SOURCE and report.endpoints), None)
    counted = (decisive,) if decisive else reports
    addresses: set[str] = set()
    instances: set[str] = set()  # of earlier sources
    endpoints: list[Endpoint] = []
    stale = False
    for report in counted:
        for endpoint in sorted(
            _acceptable(report, name, own), key=lambda found: (found.instance, found.address)
        ):
            if endpoint.address not in addresses and endpoint.instance not in instances:
                addresses.add(endpoint.address)
                endpoints.append(_recognised(endpoint, own))
                stale = stale or report.failure is not None
        instances |= {endpoint.instance for endpoint in report.endpoints if endpoint.instance}
    return EndpointSet(
        name=name,
        endpoints=tuple(endpoints),
        stale=stale,
        tried=tuple(describe(report, name, own) for report in counted),
    )


def describe(report: Report, name: AppName, own: Own) -> str:
    """One line for people: the source and what came of asking it."""
    note = "".join(f", {ignored}" for ignored in _ignored(report, name, own))
    if report.failure is not None:
        kept = f", keeping {_count(len(report.endpoints))}" if report.endpoints else ""
        again = ", asking again" if report.pending and not report.endpoints else ""
        return f"{report.source}: {report.failure}{kept}{again}{note}"
    waiting = "still asking" if report.pending else "not asked"
    return f"{report.source}: {_count(len(report.endpoints)) if report.endpoints else waiting}{note}"


def is_of_use(report: Report, name: AppName, own: Own) -> bool:
    """Whether a report has an endpoint that is not another mesh's or namespace's."""
    return bool(_acceptable(report, name, own))


def _acceptable(report: Report, name: AppName, own: Own) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in report.endpoints if why_foreign(endpoint, name, own) is None)


def _ignored(report: Report, name: AppName, own: Own) -> list[str]:
    """How many endpoints are left out, by reason."""
    reasons = [why_foreign(endpoint, name, own) for endpoint in report.endpoints]
    return [
        f"{reasons.count(reason)} ignored {reason}" for reason in dict.fromkeys(reasons) if reason is not None
    ]


def why_foreign(endpoint: Endpoint, name: AppName, own: Own) -> str | None:
    """Why an endpoint does not count, or None.

    A peer that says nothing of mesh or namespace (a daprd) is judged by its certificate alone.
    """
    mesh = endpoint.attribute(MESH_ATTRIBUTE)
    namespace = endpoint.attribute(NAMESPACE_ATTRIBUTE)
    if mesh and own.mesh is not None and mesh != own.mesh:
        if not own.mesh:
            return "because it uses mTLS and this sidecar does not (drop --insecure-plaintext, or add --enable-mtls as daprd)"
        return "because it is of another mesh (its trust anchors are not ours)"
    if namespace and namespace != name.namespace and not own.any_namespace:
        return f"because it is in namespace {namespace[:64]!r}, not {name.namespace!r}"
    return None


def _recognised(endpoint: Endpoint, own: Own) -> Endpoint:
    return replace(endpoint, own=True) if own.instance and endpoint.instance == own.instance else endpoint


def _count(endpoints: int) -> str:
    return "1 endpoint" if endpoints == 1 else f"{endpoints} endpoints"
