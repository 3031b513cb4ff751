"""Traffic rules as the control plane has them: what they make of the clusters that it pushes."""

from msgspec.structs import asdict

from nameresolution.mdns.records import MDNS_SOURCE
from nameresolution.resolver import AppName, EndpointSet
from policies.rules.traffic import BalancingRule, TargetTraffic, TrafficRules
from proxy.contract.balancing import Balancing, Outliers
from proxy.contract.engine import Cluster, Upstream


def balancing_of(rule: BalancingRule, own: AppName) -> Balancing:
    """A rule as data for engines. own: the app whose calls they are."""
    if rule.policy != "ring-hash":
        return Balancing(policy=rule.policy)
    if rule.header:
        return Balancing(policy="ring-hash", header=rule.header.encode())
    return Balancing(policy="ring-hash", key=str(own).encode())


def outliers_of(target: TargetTraffic) -> Outliers | None:
    """The same of who is left out."""
    return None if target.outliers is None else Outliers(**asdict(target.outliers))


def peer_cluster(found: EndpointSet, traffic: TrafficRules, own: AppName, *, mtls: bool) -> Cluster:
    """The cluster of an app's proxies, which has endpoints."""
    name = found.name
    target = traffic.for_app(name.app_id, name.namespace)
    upstreams = tuple(
        Upstream(
            address=end.address,
            instance=end.instance,
            weight=end.weight,
            rank=int(end.source == MDNS_SOURCE),  # anybody on the link may announce anything
        )
        for end in found.endpoints
    )
    return Cluster(
        key=f"peer:{name.app_id}.{name.namespace}",
        wire="postern",
        tls="mesh" if mtls else None,
        upstreams=upstreams,
        stale=found.stale,
        who=f"the proxy of {name.app_id}.{name.namespace}",
        balancing=balancing_of(target.balancing, own),
        outliers=outliers_of(target),
    )
