"""The Envoy that calls many peers knows each by its own address and identity."""

from pathlib import Path

from tests.bench.certificates import Identity
from tests.bench.envoy import Config, peers_config

OWN = Identity(
    spiffe_id="spiffe://public/ns/default/load",
    chain=Path("load.crt"),
    key=Path("load.key"),
    roots=Path("roots.crt"),
)


def tls_of(cluster: Config) -> Config:
    common: Config = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    return common


def test_each_peer_is_a_cluster_of_its_own_found_by_the_header_that_names_it() -> None:
    resources = peers_config(1, 2, OWN, {"peer-000": 3000, "peer-001": 3001})["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"] == {"cluster_header": "dapr-app-id"}
    found = {cluster["name"]: cluster for cluster in resources["clusters"]}
    assert list(found) == ["peer-000", "peer-001"]
    for number, (name, cluster) in enumerate(found.items()):
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == 3000 + number
        (matched,) = tls_of(cluster)["validation_context"]["match_typed_subject_alt_names"]
        assert matched == {"san_type": "URI", "matcher": {"exact": f"spiffe://public/ns/default/{name}"}}
        assert tls_of(cluster)["alpn_protocols"] == ["h2"]
