"""Clusters outside of the mesh: what is pushed for a host's addresses, and when it is dropped."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from policies.rules.http_endpoints import ClientTls, HttpEndpoint, parse_url
from policies.rules.traffic import BalancingRule, TargetTraffic, TrafficRules
from proxy.contract.balancing import Balancing
from proxy.contract.engine import Cluster, Engine, VerifiedTls, Via
from proxy.contract.plan import Decision, Hold, Plan
from proxy.control.external import MAX_URLS, ExternalClusters, system_roots
from proxy.deciding.egress import Egress
from proxy.deciding.outbound import Outbound
from telemetry.web_proxies import WebProxies
from tests.unit.proxy.heads import asking, head, outbound

TLS = ClientTls(root_ca=b"root", certificate=b"chain", private_key=b"key")
PAY = HttpEndpoint(name="pay", url=parse_url("https://10.0.0.1:8443/v1"), tls=TLS)
KEY = "http-endpoint:pay"
TO_PAY = head("/v1.0/invoke/pay/method/x")


class Pushes:
    """An engine that keeps what it is told of clusters."""

    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}
        self.invalidated: list[str] = []
        self.fault = ""
        self.woken = asyncio.Event()
        self.wake_held: Callable[[], None] = lambda: None

    def set_cluster(self, cluster: Cluster) -> None:
        if self.fault:
            raise ValueError(self.fault)
        self.clusters[cluster.key] = cluster
        self.wake_held()

    def drop_cluster(self, key: str) -> None:
        del self.clusters[key]

    def invalidate(self, scope: str) -> None:
        self.invalidated.append(scope)

    def wake(self, _: str) -> None:
        self.woken.set()


class Scene:
    """A decider whose view the clusters change."""

    def __init__(
        self,
        *egress: str,
        own_ports: frozenset[int] = frozenset(),
        env: Mapping[str, str] | None = None,
        **endpoints: HttpEndpoint,
    ) -> None:
        self.outbound: Outbound = outbound(
            egress=Egress(egress), http_endpoints=endpoints or {"pay": PAY}, known=frozenset()
        )
        self.engine = Pushes()
        self.clusters = ExternalClusters(
            *(lambda: self.outbound.view, self.know),
            own_ports=lambda: own_ports,
            own_ip="192.0.2.7",
            proxies=WebProxies.of(env or {}),
        )
        self.clusters.attach(cast("Engine", self.engine))

    def know(self, key: str, is_known: bool) -> None:
        known = self.outbound.view.known
        known = known | {key} if is_known else known - {key}
        self.outbound.view = replace(self.outbound.view, known=known)

    def call(self, target: str) -> Decision:
        """As the control plane has it: decided again where the address was known at once."""
        one = asking(head(target))
        decision = self.outbound.decide(one)
        lost = self.clusters.decided(decision)
        if lost is None and isinstance(decision, Hold) and decision.key in self.outbound.view.known:
            return self.outbound.decide(one)
        return lost or decision


def test_endpoint_is_pushed_with_its_tls() -> None:
    scene = Scene()
    assert isinstance(scene.call("/v1.0/invoke/pay/method/x"), Plan)
    (cluster,) = scene.engine.clusters.values()
    assert (cluster.key, cluster.wire) == (KEY, "http1")
    assert [upstream.address for upstream in cluster.upstreams] == ["10.0.0.1:8443"]
    assert cluster.tls == VerifiedTls(name="10.0.0.1", roots_pem=b"root", chain_pem=b"chain", key_pem=b"key")
    assert scene.engine.invalidated == [f"name:{KEY}"]


def test_url_trusts_the_systems_roots_and_http_has_none() -> None:
    scene = Scene("*")
    scene.call("/v1.0/invoke/https://10.0.0.2/method/x")
    scene.call("/v1.0/invoke/http://10.0.0.2/method/x")
    secure, plain = (scene.engine.clusters[f"url:{scheme}://10.0.0.2"].tls for scheme in ("https", "http"))
    assert secure == VerifiedTls(name="10.0.0.2", roots_pem=system_roots())
    assert plain is None


def test_changed_endpoint_is_dropped_and_pushed_anew() -> None:
    scene = Scene()
    scene.call("/v1.0/invoke/pay/method/x")
    before = scene.outbound.view.http_endpoints
    moved = {"pay": replace(PAY, headers=((b"x", b"y"),), url=parse_url("https://10.0.0.1:8443/v2"))}
    scene.outbound.view = replace(scene.outbound.view, http_endpoints=moved)
    scene.clusters.policy_changed(before)
    assert KEY in scene.engine.clusters  # its path and headers are the Plan's
    for changed in (replace(PAY, tls=ClientTls()), replace(PAY, url=parse_url("https://10.0.0.9/v1"))):
        before = scene.outbound.view.http_endpoints
        scene.outbound.view = replace(scene.outbound.view, http_endpoints={"pay": changed})
        scene.clusters.policy_changed(before)
        assert scene.engine.clusters == {}
        assert KEY not in scene.outbound.view.known
        scene.call("/v1.0/invoke/pay/method/x")
        assert KEY in scene.engine.clusters
    before = scene.outbound.view.http_endpoints
    scene.outbound.view = replace(scene.outbound.view, http_endpoints={})
    scene.clusters.policy_changed(before)
    assert scene.engine.clusters == {}


def test_traffic_rules_hold_for_what_is_pushed_already() -> None:
    scene = Scene("*")
    scene.call("/v1.0/invoke/pay/method/x")
    scene.call("/v1.0/invoke/https://10.0.0.2/method/x")
    by_user = BalancingRule(policy="ring-hash", header="x-user")
    by_turns = TargetTraffic(balancing=BalancingRule(policy="round-robin"))
    rules = TrafficRules(targets={"pay.shop": TargetTraffic(balancing=by_user)}, default=by_turns)
    scene.outbound.view = replace(scene.outbound.view, traffic=rules)
    scene.clusters.push_again()
    assert scene.engine.clusters[KEY].balancing == Balancing(policy="ring-hash", header=b"x-user")
    assert scene.engine.clusters["url:https://10.0.0.2"].balancing == Balancing(policy="round-robin")


def test_urls_are_kept_up_to_a_bound_and_endpoints_beyond() -> None:
    scene = Scene("*")
    scene.call("/v1.0/invoke/pay/method/x")
    for number in range(MAX_URLS + 2):
        scene.call(f"/v1.0/invoke/http://10.0.1.1:{number + 1}/method/x")
        scene.call("/v1.0/invoke/http://10.0.1.1:1/method/x")
    assert len(scene.engine.clusters) == MAX_URLS + 1
    assert {KEY, "url:http://10.0.1.1:1"} <= scene.engine.clusters.keys()
    assert "url:http://10.0.1.1:2" not in scene.engine.clusters


def test_address_of_credentials_is_called_where_it_is_spelt_out_alone() -> None:
    meta = "/v1.0/invoke/http://169.254.169.254/method/x"
    refused = Scene("*").call(meta)
    assert isinstance(refused, Hold)
    assert refused.for_s == 0.0
    assert isinstance(Scene("169.254.169.254").call(meta), Plan)
    named = HttpEndpoint(name="meta", url=parse_url("http://169.254.169.254"))
    assert isinstance(Scene(meta=named).call("/v1.0/invoke/meta/method/x"), Plan)


def test_own_ports_are_never_called() -> None:
    scene = Scene("127.0.0.1", own_ports=frozenset({3500}))
    assert isinstance(scene.call("/v1.0/invoke/http://127.0.0.1:3500/method/v1.0/shutdown"), Hold)
    assert "is a port of this proxy" in scene.clusters.explain("url:http://127.0.0.1:3500")
    assert isinstance(scene.call("/v1.0/invoke/http://127.0.0.1:3501/method/x"), Plan)


def test_names_behind_a_proxy_are_its_to_look_up() -> None:
    env = {"HTTP_PROXY": "http://ada:secret@proxy.example:3128", "HTTPS_PROXY": "https://[2001:db8::1]"}
    scene = Scene("*", env=env | {"NO_PROXY": "10.0.0.0/8"})
    for url in ("http://api.example", "https://api.example:8443", "http://10.0.0.2"):
        assert isinstance(scene.call(f"/v1.0/invoke/{url}/method/x"), Plan)
    plain, secure, direct = scene.engine.clusters.values()
    assert plain.via == Via(address="proxy.example:3128", authorization=b"Basic YWRhOnNlY3JldA==")
    assert [upstream.address for upstream in plain.upstreams] == ["api.example:80"]
    tls = VerifiedTls(name="2001:db8::1", roots_pem=system_roots())
    assert secure.via == Via(address="[2001:db8::1]:443", tls=tls)
    assert [upstream.address for upstream in secure.upstreams] == ["api.example:8443"]
    assert secure.who == "the server at api.example:8443"
    assert direct.via is None


def test_address_of_credentials_is_not_asked_of_a_proxy() -> None:
    scene = Scene("*", env={"HTTP_PROXY": "http://proxy.example:3128"})
    assert isinstance(scene.call("/v1.0/invoke/http://169.254.169.254/method/x"), Hold)
    assert "where clouds serve credentials" in scene.clusters.explain("url:http://169.254.169.254")


def test_proxy_that_cannot_be_used_is_told() -> None:
    scene = Scene("*", env={"HTTP_PROXY": "socks5://proxy.example:1080"})
    refused = scene.call("/v1.0/invoke/http://api.example/method/x")
    assert isinstance(refused, Hold)
    assert refused.for_s == 0.0
    assert "HTTP_PROXY has scheme 'socks5'" in scene.clusters.explain("url:http://api.example")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "192.0.2.7"])
def test_proxy_that_is_the_sidecar_itself_stands_before_nothing(host: str) -> None:
    scene = Scene("*", own_ports=frozenset({3500}), env={"HTTP_PROXY": f"http://{host}:3500"})
    assert isinstance(scene.call("/v1.0/invoke/http://10.0.0.2/method/x"), Plan)
    (cluster,) = scene.engine.clusters.values()
    assert cluster.via is None


async def test_calls_wait_for_a_host_and_are_woken() -> None:
    pay = replace(PAY, url=parse_url("https://pay.invalid"))
    scene = Scene(pay=pay)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(scene.clusters.hosts.run())
        await asyncio.sleep(0)
        held = scene.call("/v1.0/invoke/pay/method/x")
        assert isinstance(held, Hold)
        assert held.for_s > 0
        async with asyncio.timeout(20.0):
            await scene.engine.woken.wait()
        running.cancel()
    assert "pay.invalid was not found" in scene.clusters.explain(KEY)
    lost = scene.call("/v1.0/invoke/pay/method/x")
    assert isinstance(lost, Hold)
    assert lost.for_s == 0.0


def test_call_that_is_held_is_decided_within_the_push() -> None:
    scene = Scene()
    decided: list[Decision] = []
    scene.engine.wake_held = lambda: decided.append(scene.outbound.decide(asking(TO_PAY)))
    scene.call("/v1.0/invoke/pay/method/x")
    assert isinstance(decided[0], Plan)


def test_material_that_no_engine_takes_is_the_answer_to_calls() -> None:
    scene = Scene()
    scene.engine.fault = "no such curve"
    lost = scene.call("/v1.0/invoke/pay/method/x")
    assert isinstance(lost, Hold)
    assert lost.for_s == 0.0
    assert scene.clusters.explain(KEY) == "its TLS can't be set up: no such curve"
    assert KEY not in scene.outbound.view.known


def test_system_without_roots_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = ssl.get_default_verify_paths()
    folder = paths._replace(cafile=None, capath=str(tmp_path))  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: folder)
    scene = Scene("*")
    assert isinstance(scene.call("/v1.0/invoke/https://10.0.0.2/method/x"), Hold)
    assert "this system has no root certificates" in scene.clusters.explain("url:https://10.0.0.2")
    (tmp_path / "12345678.0").write_bytes(b"one")
    (tmp_path / "12345678.1").write_bytes(b"two")
    (tmp_path / "other.pem").write_bytes(b"three")
    assert system_roots() == b"one\ntwo"


def test_peers_are_none_of_its_business() -> None:
    assert Scene().clusters.explain("peer:a.b") == ""
