from __future__ import annotations

from nameresolution.merge import Own, Report, merge
from nameresolution.resolver import AppName, Endpoint, SourceFailure

CART = AppName("cart", "default")
US = Own(instance="me", mesh="abc")


def local(port: int, instance: str, **attributes: str) -> Endpoint:
    return Endpoint(
        host="127.0.0.1",
        port=port,
        instance=instance,
        source="host registry",
        attributes=tuple(attributes.items()),
    )


def remote(host: str, port: int, instance: str = "", **attributes: str) -> Endpoint:
    return Endpoint(
        host=host, port=port, instance=instance, source="mdns", attributes=tuple(attributes.items())
    )


def test_merge_same_instance_in_two_sources_keeps_the_earlier_source() -> None:
    reports = (
        Report(source="host registry", endpoints=(local(50002, "a"),)),
        Report(source="mdns", endpoints=(remote("10.0.0.5", 50002, "a"), remote("10.0.0.6", 50002, "b"))),
    )
    merged = merge(CART, reports, US)
    assert [found.address for found in merged.endpoints] == ["127.0.0.1:50002", "10.0.0.6:50002"]
    assert merged.tried == ("host registry: 1 endpoint", "mdns: 2 endpoints")


def test_merge_without_instance_ids_drops_the_same_address() -> None:
    reports = (
        Report(source="one", endpoints=(remote("10.0.0.5", 50002),)),
        Report(source="two", endpoints=(remote("10.0.0.5", 50002), remote("10.0.0.5", 50003))),
    )
    assert [found.port for found in merge(CART, reports, US).endpoints] == [50002, 50003]


def test_merge_a_file_entry_wins_outright() -> None:
    fixed = Endpoint(host="192.0.2.7", port=1, source="file")
    reports = (
        Report(source="file", endpoints=(fixed,)),
        Report(source="mdns", endpoints=(remote("10.0.0.6", 50002, "b"),)),
    )
    merged = merge(CART, reports, US)
    assert merged.endpoints == (fixed,)
    assert merged.tried == ("file: 1 endpoint",)


def test_merge_a_file_without_that_entry_leaves_the_others() -> None:
    reports = (
        Report(source="file", failure=SourceFailure(reason="no entry", missing=True)),
        Report(source="mdns", endpoints=(remote("10.0.0.6", 50002, "b"),)),
    )
    assert len(merge(CART, reports, US).endpoints) == 1


def test_merge_ignores_foreign_mesh_and_namespace_but_keeps_peers_that_say_neither() -> None:
    found = (
        remote("10.0.0.1", 1, "a", m="other"),
        remote("10.0.0.2", 1, "b", ns="shop"),
        remote("10.0.0.3", 1),
        remote("10.0.0.4", 1, "c", m="abc", ns="default"),
    )
    merged = merge(CART, (Report(source="mdns", endpoints=found),), US)
    assert {endpoint.host for endpoint in merged.endpoints} == {"10.0.0.3", "10.0.0.4"}
    (tried,) = merged.tried
    assert tried.startswith("mdns: 4 endpoints, 1 ignored because it is of another mesh")
    assert tried.endswith("1 ignored because it is in namespace 'shop', not 'default'")


def test_caller_without_mtls_takes_an_app_from_any_namespace_unless_the_right_one_has_it() -> None:
    plain = Own(instance="me", mesh="")
    shop, default = remote("10.0.0.2", 1, "b", ns="shop"), remote("10.0.0.3", 1, "c", ns="default")
    (found,) = merge(CART, (Report(source="mdns", endpoints=(shop,)),), plain).endpoints
    assert found.host == "10.0.0.2"
    reports = (Report(source="host registry", endpoints=(shop,)), Report(source="mdns", endpoints=(default,)))
    (found,) = merge(CART, reports, plain).endpoints
    assert found.host == "10.0.0.3"
    assert merge(CART, (Report(source="mdns", endpoints=(shop,)),), US).endpoints == ()


def test_caller_without_mtls_is_told_that_those_with_it_are_ignored() -> None:
    secured = remote("10.0.0.1", 1, "a", m="abc")
    (tried,) = merge(CART, (Report(source="mdns", endpoints=(secured,)),), Own(mesh="")).tried
    assert (
        "it uses mTLS and this sidecar does not (drop --insecure-plaintext, or add --enable-mtls as daprd)"
        in tried
    )


def test_merge_without_mtls_ignores_every_mesh_and_before_identity_none() -> None:
    report = (Report(source="mdns", endpoints=(remote("10.0.0.1", 1, "a", m="other"),)),)
    assert merge(CART, report, Own(mesh="")).endpoints == ()
    assert len(merge(CART, report, Own(mesh=None)).endpoints) == 1


def test_merge_recognises_the_own_instance() -> None:
    reports = (Report(source="host registry", endpoints=(local(1, "me"), local(2, "you"))),)
    assert {found.instance: found.own for found in merge(CART, reports, US).endpoints} == {
        "me": True,
        "you": False,
    }


def test_merge_order_does_not_depend_on_the_order_found() -> None:
    one, two = remote("10.0.0.1", 1, "a"), remote("10.0.0.2", 1, "b")
    first = merge(CART, (Report(source="mdns", endpoints=(one, two)),), US)
    second = merge(CART, (Report(source="mdns", endpoints=(two, one)),), US)
    assert first == second


def test_merge_endpoints_of_a_failed_source_are_stale_and_say_so() -> None:
    report = Report(
        source="mdns",
        endpoints=(remote("10.0.0.1", 1),),
        failure=SourceFailure(reason="no interface", fix="plug it in"),
    )
    merged = merge(CART, (report,), US)
    assert merged.stale
    assert merged.tried == ("mdns: no interface (fix: plug it in), keeping 1 endpoint",)


def test_merge_a_failed_source_without_endpoints_makes_nothing_stale() -> None:
    reports = (
        Report(source="host registry", endpoints=(local(1, "a"),)),
        Report(source="mdns", failure=SourceFailure(reason="blocked")),
    )
    assert not merge(CART, reports, US).stale


def test_claim_to_an_instance_id_hides_no_address_of_the_same_source_but_an_earlier_source_wins() -> None:
    honest, claim = remote("10.0.0.9", 1, "a"), remote("10.0.0.1", 1, "a")
    merged = merge(CART, (Report(source="mdns", endpoints=(honest, claim)),), US)
    assert {endpoint.host for endpoint in merged.endpoints} == {"10.0.0.9", "10.0.0.1"}
    reports = (Report(source="host registry", endpoints=(honest,)), Report(source="mdns", endpoints=(claim,)))
    assert [endpoint.host for endpoint in merge(CART, reports, US).endpoints] == ["10.0.0.9"]
