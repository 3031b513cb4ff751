"""News become pushes: an engine that writes down what it is told, a directory whose source is the test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from nameresolution.cache import Lifetimes
from nameresolution.directory import Directory
from nameresolution.host_registry import Entry
from nameresolution.resolver import AppName, Endpoint, EndpointSet, Found, Instance, Push, SourceFailure
from policies.reloading.loading import PolicySnapshot, PolicySources, load
from policies.rules.pipelines import Pipelines, RateLimit, RouterAlias
from policies.rules.resiliency import BreakerRule, ResiliencyRules, TargetRules
from policies.rules.traffic import BalancingRule, TargetTraffic, TrafficRules
from proxy.contract.balancing import Balancing
from proxy.contract.breakers import BreakerGlance, BreakerSpec
from proxy.contract.budgets import BudgetGlance
from proxy.contract.engine import Cluster, EngineStats, ListenerSpec, OpenWork, TlsIdentity
from proxy.contract.gates import ConcurrencyGate, GateSpec, RateGate
from proxy.contract.plan import DETAIL, Cause, Decision, Edit, Hold, Op, Plan, Reply
from proxy.contract.recording import RecordingHead, Table, Tables
from proxy.contract.watching import Watch
from proxy.control.app_watch import AppWatch
from proxy.control.first_views import HOLD_S, LEARNING_S
from proxy.control.plane import AGAIN_HOLD_S, Control
from proxy.control.remote_fetch import RemoteFetch
from proxy.deciding.callee import API_TOKEN_SET, TRUTHY_SET
from proxy.deciding.naming import SERVICES_HOLD
from proxy.deciding.outbound import ABSENT_HOLD_S, SPELLINGS
from proxy.deciding.retry_policies import breaker_spec
from proxy.settings.parsing import parse
from proxy.settings.values import Settings
from proxy.wire.web_client import WebClient
from sentry.bundle import TrustBundle
from sentry.client import Svid
from sentry.issuer import make_root, new_key
from sentry.spiffe import SpiffeId
from tests.unit.proxy.heads import head
from tests.unit.sentry.forge import Forgery

CART = AppName("cart", "default")
KEY = "peer:cart.default"
ONE = Endpoint(host="10.0.0.1", port=5000, instance="a", source="fake", weight=2)
TWO = Endpoint(host="fd00::2", port=5000, instance="b", source="fake")
GRPC: dict[str, Any] = {"protocol": "grpc", "method": "POST", "framing": "stream", "authority": "localhost"}
POLICY = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
    - appId: cart
      defaultAction: allow
      trustDomain: public
      namespace: default
      operations: [{name: /admin, httpVerb: [POST], action: deny}]
"""


class Recorder:
    """An engine that keeps what it is told; its tables are real."""

    name = "recorder"

    def __init__(self) -> None:
        self.tables = Tables()
        self.sets: dict[int, frozenset[bytes]] = {}
        self.clusters: dict[str, Cluster] = {}
        self.gates: dict[str, GateSpec | None] = {}
        self.glances: tuple[BreakerGlance, ...] = ()
        self.breaker_specs: list[tuple[str, BreakerSpec | None]] = []
        self.identity: TlsIdentity | None = None
        self.invalidated: list[str] = []
        self.woken: list[str] = []
        self.redecided_open = 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def listen(self, spec: ListenerSpec) -> str:
        return spec.address

    async def unlisten(self, name: str) -> None:
        raise AssertionError(name)

    def watch(self, watch: Watch | None) -> None:
        raise AssertionError(watch)

    async def report(self) -> None:
        raise AssertionError

    def recall(self) -> bool:
        raise AssertionError

    def set_cluster(self, cluster: Cluster) -> None:
        self.clusters[cluster.key] = cluster

    def drop_cluster(self, key: str) -> None:
        del self.clusters[key]

    def wake(self, key: str) -> None:
        self.woken.append(key)

    def set_paths(self, number: int, table: Table) -> None:
        self.tables.put_paths(number, table)

    def set_members(self, number: int, members: frozenset[bytes]) -> None:
        self.sets[number] = members
        self.tables.put_set(number, members)

    def set_gate(self, name: str, spec: GateSpec | None) -> None:
        self.gates[name] = spec

    def set_breaker(self, name: str, spec: BreakerSpec | None) -> None:
        self.breaker_specs.append((name, spec))

    def breakers(self) -> tuple[BreakerGlance, ...]:
        return self.glances

    def budgets(self) -> tuple[BudgetGlance, ...]:
        return ()

    def set_identity(self, identity: TlsIdentity | None) -> None:
        self.identity = identity

    def invalidate(self, scope: str) -> None:
        self.invalidated.append(scope)

    def redecide_open(self) -> None:
        self.redecided_open += 1

    async def drain(self, listeners: Sequence[str], within_s: float) -> int:
        raise AssertionError(listeners)

    def loads(self, key: str) -> tuple[dict[str, object], ...]:
        return ()

    def stats(self) -> EngineStats:
        return EngineStats(0, 0, 0, 0)

    def open_work(self) -> OpenWork:
        return OpenWork(calls={}, streams_in=0, streams_out=0, replay_bytes=0)


class Source:
    """A resolver that says what the test says; `at_once` is its answer to every question."""

    source = "fake"

    def __init__(self) -> None:
        self.lag_s = 0.0
        self.asked: list[AppName] = []
        self.at_once: Found | None = None
        self.started = asyncio.Event()
        self._push: Push | None = None

    async def run(self, push: Push) -> None:
        self._push = push
        self.started.set()
        await asyncio.Event().wait()

    def watch(self, name: AppName) -> None:
        self.asked.append(name)
        if self.at_once is not None:
            self.say(self.at_once)

    def forget(self, name: AppName) -> None:
        """Nothing is held."""

    async def announce(self, instance: Instance) -> None:
        raise AssertionError(instance)

    async def withdraw(self) -> None:
        raise AssertionError

    def say(self, found: Found, name: AppName = CART) -> None:
        assert self._push is not None
        self._push(self.source, name, found)


@dataclass
class World:
    """A control plane between a source and an engine."""

    control: Control
    settings: Settings
    directory: Directory
    policy: PolicySnapshot
    source: Source
    wanted: list[str]
    engine: Recorder = field(default_factory=Recorder)

    def decide(self, target: str = "/v1.0/invoke/cart/method/x", **changes: Any) -> Decision:
        """The outbound decision for the app's request."""
        return self.control.decide_outbound(RecordingHead(head(target, **changes), self.engine.tables))

    def judge_peer(self, verb: str, path: str = "/admin", app: str = "cart") -> Decision:
        """The inbound decision for a peer's request."""
        one = head(path, method=verb, listener="peer", peer=f"spiffe://public/ns/default/{app}")
        return self.control.inbound.decide(RecordingHead(one, self.engine.tables))


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def making(
        *flags: str, profile: str = "dev", lifetimes: Lifetimes | None = None, **variables: str
    ) -> World:
        env = {"POSTERN_HOME": str(tmp_path / "root"), **variables}
        settings = parse(["--app-id", "web", "--app-port", "8080", "--profile", profile, *flags], env)
        policy = load(PolicySources(own_app_id="web", own_namespace=settings.namespace, profile="dev"))
        source = Source()
        directory = Directory([source], lifetimes=lifetimes)
        wanted: list[str] = []
        control = Control(
            *(settings, policy, directory, "box", "10.1.1.1"),
            now=lambda: 0.0,
            want_dapr_api=lambda: wanted.append("dapr-api"),
            want_callback=lambda: wanted.append("app-callback"),
            remote=RemoteFetch(WebClient()),
        )
        world = World(control, settings, directory, policy, source, wanted)
        control.attach(world.engine)
        return world

    return making


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.directory.run())
        await world.directory.wait_running()
        await world.source.started.wait()
        yield
        task.cancel()


def found(*endpoints: Endpoint, name: AppName = CART, stale: bool = False) -> EndpointSet:
    return EndpointSet(name=name, endpoints=endpoints, stale=stale)


# --- the first picture


@pytest.mark.parametrize(
    ("protocol", "wire", "tls"),
    [
        ("http", "http1", None),
        ("https", "http1", "app"),
        ("h2c", "h2c", None),
        ("grpc", "h2c", None),
        ("grpcs", "h2c", "app"),
    ],
)
def test_app_is_pushed_in_its_own_protocol(make: Make, protocol: str, wire: str, tls: str | None) -> None:
    cluster = make("--app-protocol", protocol).engine.clusters["app"]
    assert (cluster.wire, cluster.tls) == (wire, tls)
    assert [up.address for up in cluster.upstreams] == ["127.0.0.1:8080"]


def test_first_picture_has_tables_sets_and_gates(make: Make) -> None:
    engine = make("--app-max-concurrency", "3", DAPR_API_TOKEN="secret").engine
    assert engine.gates == {"app-concurrency": ConcurrencyGate(limit=3)}
    assert engine.sets[API_TOKEN_SET] == {b"secret"}
    assert {b"true", b"1", b"ON", b"y"} <= engine.sets[TRUTHY_SET]
    assert make().engine.gates == {}
    assert make().engine.sets[API_TOKEN_SET] == frozenset()


def test_gates_of_pipelines_come_and_go_with_the_policy(make: Make) -> None:
    world = make()
    before = load(PolicySources(own_app_id="web", own_namespace="default"))
    limits = Pipelines(
        http=(RateLimit(name="a", per_s=2.0),),
        app=(RouterAlias(name="b", routes=(("/x", "/y"),)), RateLimit(name="a", per_s=0.5)),
    )
    world.control.policy_changed(replace(before, pipelines=limits))
    one, two = RateGate(per_s=2.0, burst=2), RateGate(per_s=0.5, burst=1)
    assert world.engine.gates == {"http:0:a": one, "app:1:a": two}
    found = world.decide("/v1.0/invoke/web/method/x")
    assert isinstance(found, Plan)
    assert found.gates == ("http:0:a", "app:1:a")
    assert Edit(op=Op.PATH, data=b"/y") in found.routes[0].edits
    world.control.policy_changed(replace(before, pipelines=Pipelines(http=limits.http)))
    assert world.engine.gates == {"http:0:a": one, "app:1:a": None}


def test_circuit_breakers_come_and_go_with_the_policy(make: Make) -> None:
    def rules(*owners: str) -> PolicySnapshot:
        each = {owner: TargetRules(breaker=replace(guard, owner=owner)) for owner in owners}
        return replace(before, resiliency=ResiliencyRules(targets=each))

    world = make()
    before = load(PolicySources(own_app_id="web", own_namespace="default"))
    guard = BreakerRule(name="guard", trip=(("bool", 1),))
    spec = breaker_spec(guard)
    world.control.policy_changed(rules("a", "b"))
    world.control.policy_changed(rules("b"))
    assert world.engine.breaker_specs == [("a", spec), ("b", spec), ("a", None), ("b", spec)]


def test_dapr_grpc_api_is_started_by_its_first_call_alone(make: Make) -> None:
    world, method = make(), "/dapr.proto.runtime.v1.Dapr/GetMetadata"
    world.decide("/dapr.proto.runtime.v1.Dapr/SaveState", **GRPC)
    assert (world.wanted, "dapr-api" in world.engine.clusters) == ([], False)
    assert isinstance(world.decide(method, **GRPC), Hold)
    assert world.wanted == ["dapr-api"]
    world.control.dapr_api_started("unix:/run/web.rpc")
    assert isinstance(world.decide(method, **GRPC), Plan)
    cluster = world.engine.clusters["dapr-api"]
    assert (cluster.wire, cluster.tls, cluster.upstreams[0].address) == ("h2c", None, "unix:/run/web.rpc")
    assert world.wanted == ["dapr-api"]


def test_server_that_calls_on_invoke_is_started_by_its_first_call_alone(make: Make) -> None:
    world = make("--app-protocol", "grpc")

    def from_peer() -> Decision:
        headers = ((b"postern-callee", b"web.default"), (b"postern-surface", b"dapr"))
        one = head("/x", listener="peer", peer="spiffe://public/ns/default/cart", headers=headers)
        return world.control.decide_inbound(RecordingHead(one, world.engine.tables))

    assert isinstance(world.decide("/v1.0/invoke/web/method/x"), Hold)
    assert isinstance(from_peer(), Hold)
    assert world.wanted == ["app-callback", "app-callback"]
    world.control.callback_started("unix:/run/web.inv")
    assert "app" in world.engine.invalidated
    for found in (world.decide("/v1.0/invoke/web/method/x"), from_peer()):
        assert isinstance(found, Plan)
        assert found.routes[0].cluster == "app-callback"
    assert world.engine.clusters["app-callback"].wire == "http1"
    assert len(world.wanted) == 2
    to_app = world.control.decide_callback(RecordingHead(head("/x"), world.engine.tables))
    assert isinstance(to_app, Plan)
    assert to_app.routes[0].cluster == "app"


def test_app_without_a_port_has_no_cluster(tmp_path: Path) -> None:
    settings = parse(["--app-id", "web"], {"POSTERN_HOME": str(tmp_path)})
    policy = load(PolicySources(own_app_id="web", own_namespace="default"))
    engine = Recorder()
    Control(settings, policy, Directory([]), "box", "::1", remote=RemoteFetch(WebClient())).attach(engine)
    assert engine.clusters == {}


@pytest.mark.parametrize(("host_ip", "node"), [("10.1.1.1", b"10.1.1.1"), ("fd00::1", b'"[fd00::1]"')])
def test_forwarded_headers_name_this_host(tmp_path: Path, host_ip: str, node: bytes) -> None:
    settings = parse(["--app-id", "web"], {"POSTERN_HOME": str(tmp_path)})
    policy = load(PolicySources(own_app_id="web", own_namespace="default"))
    control = Control(settings, policy, Directory([]), "box", host_ip, remote=RemoteFetch(WebClient()))
    added = {edit.name: edit.data for edit in control.outbound.view.forwarded if edit.op is Op.ADD}
    assert added == {
        b"x-forwarded-for": host_ip.encode(),
        b"x-forwarded-host": b"box",
        b"forwarded": b"for=" + node + b";by=" + node + b";host=box",
    }


# --- names


def test_found_name_becomes_a_cluster_of_the_mesh(make: Make) -> None:
    world = make()
    world.control.names_changed(found(ONE, TWO, stale=True))
    cluster = world.engine.clusters[KEY]
    assert (cluster.wire, cluster.tls, cluster.stale) == ("postern", "mesh", True)
    assert [(up.address, up.instance, up.weight) for up in cluster.upstreams] == [
        ("10.0.0.1:5000", "a", 2),
        ("[fd00::2]:5000", "b", 1),
    ]
    assert world.engine.invalidated == [f"name:{KEY}"]
    assert isinstance(world.decide(), Plan)


def test_plain_mesh_has_plain_clusters(make: Make) -> None:
    world = make("--enable-mtls=false")
    world.control.names_changed(found(ONE))
    assert world.engine.clusters[KEY].tls is None


def test_new_endpoints_of_a_known_name_drop_no_plan(make: Make) -> None:
    world = make()
    world.control.names_changed(found(ONE))
    world.engine.invalidated.clear()
    world.control.names_changed(found(ONE, TWO))
    assert world.engine.invalidated == []
    assert len(world.engine.clusters[KEY].upstreams) == 2


def test_name_without_endpoints_loses_its_cluster_and_plans(make: Make) -> None:
    world = make()
    world.control.names_changed(found(ONE))
    world.engine.invalidated.clear()
    world.control.names_changed(found())
    assert KEY not in world.engine.clusters
    assert world.engine.invalidated == [f"name:{KEY}"]
    assert world.engine.woken == [KEY]
    assert isinstance(world.decide(), Hold)


def test_name_never_known_wakes_its_callers_only(make: Make) -> None:
    world = make()
    world.control.names_changed(found())
    assert (world.engine.invalidated, world.engine.woken) == ([], [KEY])


async def test_unknown_name_is_looked_for_and_held(make: Make) -> None:
    world = make()
    async with running(world):
        held = world.decide()
        assert isinstance(held, Hold)
        assert (held.key, held.for_s) == (KEY, HOLD_S)
        assert world.source.asked == [CART]
        world.source.say((ONE,))
        assert isinstance(world.decide(), Plan)
        assert KEY in world.engine.clusters


async def test_traffic_rules_hold_for_what_is_known_and_what_comes(make: Make) -> None:
    def rules(**apps: str) -> PolicySnapshot:
        targets = {
            f"{app}.default": TargetTraffic(balancing=BalancingRule(policy=policy))  # type: ignore[arg-type]
            for app, policy in apps.items()
        }
        return replace(before, traffic=TrafficRules(targets=targets))

    world = make()
    before = load(PolicySources(own_app_id="web", own_namespace="default"))
    async with running(world):
        world.decide()
        world.source.say((ONE,))
        assert world.engine.clusters[KEY].balancing == Balancing()
        world.control.policy_changed(rules(cart="random", shop="ring-hash"))
        assert world.engine.clusters[KEY].balancing == Balancing(policy="random")
        assert world.engine.clusters[KEY].upstreams[0].address == ONE.address
        world.decide("/v1.0/invoke/shop/method/x")
        world.source.say((ONE,), AppName("shop", "default"))
        by_caller = Balancing(policy="ring-hash", key=b"web.default")
        assert world.engine.clusters["peer:shop.default"].balancing == by_caller
        world.control.policy_changed(before)
        assert {one.balancing for key, one in world.engine.clusters.items() if key != "app"} == {Balancing()}


async def test_name_just_not_found_is_answered_at_once_with_what_was_tried(make: Make) -> None:
    world = make()
    async with running(world):
        world.decide()
        world.source.say(SourceFailure(reason="nobody answers to cart", missing=True))
        assert world.engine.woken == [KEY]
        held = world.decide()
        assert isinstance(held, Hold)
        assert held.for_s == 0.0
        assert held.then.cause is Cause.NO_APP
        assert "nobody answers to cart" in world.control.explain(KEY)


async def test_name_that_a_whole_lookup_missed_is_held_briefly_while_it_is_looked_for_again(
    make: Make,
) -> None:
    world = make(lifetimes=Lifetimes(negative_s=0.0))
    async with running(world):
        world.decide()
        world.source.say(SourceFailure(reason="nobody answers", missing=True))
        async with asyncio.timeout(30.0):
            while world.directory.get(CART) is not None:  # noqa: ASYNC110 - the task that ends it tells nobody
                await asyncio.sleep(0)
        held = world.decide()
        assert isinstance(held, Hold)
        assert (held.for_s, world.source.asked) == (AGAIN_HOLD_S, [CART, CART])
        world.source.say((ONE,))
        assert isinstance(world.decide(), Plan)


async def test_source_that_knows_at_once_leaves_nobody_waiting(make: Make) -> None:
    world = make()
    async with running(world):
        world.source.at_once = (ONE,)
        assert isinstance(world.decide(), Plan)


async def test_source_that_knows_of_nobody_at_once_leaves_nobody_waiting(make: Make) -> None:
    world = make()
    async with running(world):
        world.source.at_once = SourceFailure(reason="not in the file", missing=True)
        held = world.decide()
        assert isinstance(held, Hold)
        assert held.for_s == 0.0


async def test_name_that_lost_its_last_instance_is_answered_at_once_by_who_served_it(make: Make) -> None:
    world = make()
    async with running(world):
        world.decide()
        world.source.say((ONE,))
        world.source.say(SourceFailure(reason="the last instance said goodbye", missing=True))
        for _ in range(2):  # also once the cache's short negative answer is over
            held = world.decide()
            assert isinstance(held, Hold)
            assert (held.for_s, held.then.cause, held.then.grpc_code) == (0.0, Cause.NO_ENDPOINT, 14)
            text = held.then.grpc_message
            assert "gone since 1970-01-01T00:00:00Z, served until then by 10.0.0.1:5000 (fake)" in text
            world.control.names_changed(found())
        assert world.control.explain(KEY) == "fake: the last instance said goodbye"
        world.source.say((TWO,))
        assert isinstance(world.decide(), Plan)


async def test_source_that_is_late_with_news_is_given_the_time(make: Make) -> None:
    world = make()
    world.source.lag_s = 0.5
    async with running(world):
        world.decide()
        world.source.say((ONE,))
        world.source.say(SourceFailure(reason="no row", missing=True))
        held = world.decide()
        assert isinstance(held, Hold)
        assert (held.for_s, held.then.cause) == (0.5, Cause.NO_ENDPOINT)


async def test_registry_and_directory_may_tell_of_a_loss_in_any_order(make: Make) -> None:
    world, serving = make(), entry("cart")
    idle = replace(serving, serving=False, app_state="down")
    async with running(world):
        for late in (True, False):
            world.control.registry_changed((serving,), "m")
            world.decide()
            world.source.say((ONE,))
            assert isinstance(world.decide(), Plan)
            if not late:
                world.control.registry_changed((idle,), "m")
            world.source.say(SourceFailure(reason="registered", missing=True))
            for _ in range(2):
                held = world.decide()
                assert isinstance(held, Hold)
                assert (held.for_s, held.then.cause) == (0.0, Cause.NO_ENDPOINT)
                world.control.registry_changed((idle,), "m")


async def test_name_whose_instances_take_no_calls_yet_is_held_briefly(make: Make) -> None:
    world = make()
    starting = Entry(
        app_id="cart", instance="a", peer_port=1, pid=7, app_port=81, app_state="starting", serving=False
    )
    async with running(world):
        world.control.registry_changed((starting,), "")
        held = world.decide()
        assert isinstance(held, Hold)
        assert (held.for_s, held.then.cause) == (ABSENT_HOLD_S, Cause.NO_ENDPOINT)
        assert held.then.grpc_message == f"no instance of cart.default takes calls: {DETAIL}"
        world.source.say(SourceFailure(reason="no entry", missing=True))
        again = world.decide()
        assert isinstance(again, Hold)
        assert again.for_s == 0.0


def test_misspelt_name_is_told_what_it_resembles(make: Make) -> None:
    world = make("--route", "shop.Cart=cart", "--upstream", "checkout=7001")
    assert world.control.explain("peer:crat.default").startswith("did you mean 'cart'? tried: ")
    assert world.control.explain("peer:checkuot.default").startswith("did you mean 'checkout'? ")
    world.control.names_changed(found(ONE, name=AppName("payments", "shop")))
    assert world.control.explain("peer:payments.default").startswith("did you mean 'payments.shop'? ")
    assert world.control.explain("peer:zzz.default").startswith("is the name spelt right? ")


def _cluster(decision: Decision) -> str:
    assert isinstance(decision, Plan)
    return decision.routes[0].cluster


async def test_name_in_lower_case_means_the_one_app_that_is_spelt_otherwise(make: Make) -> None:
    world = make()
    async with running(world):
        world.control.names_changed(found(ONE, name=AppName("Cart", "default")))
        decision = world.decide()
        assert _cluster(decision) == "peer:Cart.default"
        assert isinstance(decision, Plan)
        assert decision.routes[0].expect == {"spiffe://public/ns/default/Cart"}
        assert SPELLINGS in decision.scopes
        assert _cluster(world.decide("/x", authority="cart.localhost")) == "peer:Cart.default"
        assert _cluster(world.decide("/x", authority="cart.default.localhost")) == "peer:Cart.default"
        assert isinstance(world.decide("/v1.0/invoke/CART/method/x"), Hold)  # capitals are meant as they are
        world.source.say((TWO,))  # an app of exactly that name, which was looked for meanwhile
        assert world.engine.invalidated.count(SPELLINGS) == 2
        assert _cluster(world.decide()) == KEY


def test_name_in_lower_case_that_may_mean_two_names_both(make: Make) -> None:
    world = make("--upstream", "cart=7001")
    for app in ("Cart", "CART"):
        world.control.names_changed(found(ONE, name=AppName(app, "default")))
    answer = world.decide("/x", authority="cart.localhost")
    assert isinstance(answer, Reply)
    assert answer.cause is Cause.NO_APP
    assert "'cart' may mean 'CART' or 'Cart'" in answer.grpc_message
    assert _cluster(world.decide("/v1.0/invoke/Cart/method/x")) == "peer:Cart.default"


def test_own_name_in_lower_case_means_ourselves(make: Make) -> None:
    world = make("--app-id", "Web")
    assert _cluster(world.decide("/x", authority="web.localhost")) == "app"


def test_other_decisions_look_for_nobody(make: Make) -> None:
    world = make()
    for target in ("/v1.0/healthz", "/v1.0/invoke/web/method/x", "/v1.0/invoke/a.b.c/method/x"):
        assert not isinstance(world.decide(target), Hold)
    assert world.source.asked == []


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (KEY, "is the name spelt right? tried: not looked for yet"),
        ("app", ""),
        ("local-api", ""),
        (SERVICES_HOLD, ""),
    ],
)
def test_explanation_of_a_cluster(make: Make, key: str, text: str) -> None:
    assert make().control.explain(key) == text


# --- policies, identity, the app


def test_new_policy_is_for_new_calls_alone_where_that_was_asked_for(make: Make) -> None:
    world = make("--keep-open-calls")
    world.control.policy_changed(load(PolicySources(own_app_id="web", own_namespace="default")))
    assert (world.engine.invalidated, world.engine.redecided_open) == (["access", "resiliency"], 0)


def test_new_policy_is_in_force_and_no_old_decision_is_kept(make: Make, tmp_path: Path) -> None:
    world = make()
    assert isinstance(world.judge_peer("POST"), Plan)
    file = tmp_path / "config.yaml"
    file.write_text(POLICY)
    sources = PolicySources(
        config_paths=(file,), own_app_id="web", own_namespace="default", own_trust_domain="public"
    )
    limits = ResiliencyRules(targets={"cart": TargetRules(timeout_s=0.5, builtin_retry=None)})
    world.control.policy_changed(replace(load(sources), resiliency=limits))
    assert (world.engine.invalidated, world.engine.redecided_open) == (["access", "resiliency"], 1)
    denied = world.judge_peer("POST")
    assert isinstance(denied, Reply)
    assert denied.cause is Cause.DENIED
    assert isinstance(world.judge_peer("GET"), Plan)
    assert isinstance(world.judge_peer("GET", app="other"), Reply)
    world.control.names_changed(found(ONE))
    plan = world.decide()
    assert isinstance(plan, Plan)
    assert plan.attempt_s == 0.5


def test_new_identity_is_pushed_with_its_check(make: Make) -> None:
    now = datetime.now(UTC)
    world = make()
    svid = Svid(
        spiffe_id=SpiffeId.parse("spiffe://public/ns/default/web"),
        chain_pem=b"chain",
        key_pem=b"key",
        not_before=now,
        not_after=now,
        bundle=TrustBundle.parse(make_root("r", now, new_key()).public_bytes(Encoding.PEM)),
    )
    world.control.identity_changed(svid)
    identity = world.engine.identity
    assert identity is not None
    assert (identity.chain_pem, identity.key_pem) == (b"chain", b"key")
    assert identity.roots_pem == svid.bundle.pem
    assert identity.strict is svid.bundle.is_strict
    assert identity.verify(Forgery().der(), False).spiffe_id == "spiffe://public/ns/default/cart"


def test_health_of_the_app_reaches_both_deciders(make: Make) -> None:
    world = make("--enable-app-health-check")
    for decision in (world.judge_peer("GET"), world.decide("/v1.0/invoke/web/method/x")):
        assert isinstance(decision, Reply)
        assert decision.cause is Cause.APP_UNHEALTHY  # until the first good probe
    watch = AppWatch(world.settings, lambda: None)
    watch.healthy = True
    world.control.app_changed(watch)
    assert world.engine.invalidated == ["app"]
    assert isinstance(world.judge_peer("GET"), Plan)
    assert isinstance(world.decide("/v1.0/invoke/web/method/x"), Plan)


# --- service names


def entry(app: str, *services: str, **changes: Any) -> Entry:
    facts = {"mesh": "m", "instance": app + str(len(changes)), "peer_port": 1, "grpc_services": services}
    return Entry(app_id=app, **{**facts, **changes})


def named(world: World, service: str) -> str:
    """Where a call to a service goes: the cluster, or the cause of its answer."""
    decision = world.decide(f"/{service}/Get", **GRPC)
    if isinstance(decision, Hold):
        return f"held for {decision.key}"
    return decision.cause.value if isinstance(decision, Reply) else decision.routes[0].cluster


def test_declared_service_leads_to_its_app(make: Make) -> None:
    world = make()
    world.control.names_changed(found(ONE))
    assert named(world, "shop.Cart") == f"held for {SERVICES_HOLD}"
    world.control.registry_changed((entry("cart", "shop.Cart"),), "m")
    assert (world.engine.invalidated[-1], world.engine.woken) == ("routes", [SERVICES_HOLD])
    assert named(world, "shop.Cart") == KEY
    assert world.control.naming.routes() == ["shop.Cart=cart (learnt)"]


@pytest.mark.parametrize("changes", [{"namespace": "other"}, {"mesh": "theirs"}, {"mesh": ""}])
def test_claim_from_elsewhere_is_not_heard(make: Make, changes: dict[str, Any]) -> None:
    world = make()
    world.control.registry_changed((entry("thief", "shop.Cart", **changes),), "m")
    assert world.control.naming.routes() == []
    assert world.engine.woken == []


def test_two_claimants_are_a_conflict_and_two_instances_are_not(make: Make) -> None:
    world = make()
    world.control.names_changed(found(ONE))
    claims = (entry("cart", "shop.Cart"), entry("cart", "shop.Cart", instance="second"))
    world.control.registry_changed(claims, "m")
    assert named(world, "shop.Cart") == KEY
    world.control.registry_changed((*claims, entry("thief", "shop.Cart")), "m")
    answer = world.decide("/shop.Cart/Get", **GRPC)
    assert isinstance(answer, Reply)
    assert "cart and by thief" in answer.grpc_message
    world.control.registry_changed(claims, "m")
    assert named(world, "shop.Cart") == KEY


def test_service_whose_only_app_left_is_not_unknown(make: Make) -> None:
    world = make()
    world.control.registry_changed((entry("cart", "shop.Cart"),), "m")
    world.control.registry_changed((), "m")
    decision = world.decide("/shop.Cart/Get", **GRPC)
    assert isinstance(decision, Hold)
    assert (decision.key, decision.then.cause, decision.then.grpc_code) == (KEY, Cause.NO_ENDPOINT, 14)
    assert "gone since" in decision.then.grpc_message
    near = world.decide("/shop.Catr/Get", **GRPC)
    assert isinstance(near, Hold)
    assert "did you mean shop.Cart (cart)?" in near.then.grpc_message


def test_service_that_an_app_serves_no_more_is_nobodys(make: Make) -> None:
    world = make()
    world.control.registry_changed((entry("cart", "shop.Cart"),), "m")
    world.control.registry_changed((entry("cart"),), "m")  # it has not said yet what it serves
    assert named(world, "shop.Cart") == f"held for {KEY}"
    world.control.registry_changed((entry("cart", "shop.Basket"),), "m")
    assert world.control.naming.routes() == ["shop.Basket=cart (learnt)"]


def test_instance_that_serves_claims_before_those_that_do_not(make: Make) -> None:
    world = make()
    old = entry("old-cart", "shop.Cart", serving=False)
    world.control.registry_changed((old,), "m")
    assert named(world, "shop.Cart") == "held for peer:old-cart.default"
    world.control.registry_changed((old, entry("cart", "shop.Cart")), "m")
    assert named(world, "shop.Cart") == f"held for {KEY}"


def test_services_are_told_with_who_said_so_and_how(make: Make) -> None:
    world = make("--route", "shop.Cart=cart", "--route", "pay.{Name}={name}")
    claims = (
        entry("thief", "shop.Cart"),
        entry("stock", "shop.Stock", "shop.Item", services_learnt=True),
        entry("items", "shop.Item"),
    )
    world.control.registry_changed(claims, "m")
    found = {
        (row["service"], row["app"]): (row["how"], row["by"], row["inForce"])
        for row in world.control.naming.services()
    }
    assert found == {
        ("shop.Cart", "cart"): ("route", "web", True),
        ("pay.{Name}", "{name}"): ("pattern", "web", True),
        ("shop.Cart", "thief"): ("declared", "thief", False),
        ("shop.Stock", "stock"): ("learnt", "stock", True),
        ("shop.Item", "stock"): ("learnt", "stock", False),
        ("shop.Item", "items"): ("declared", "items", False),
    }
    assert world.control.naming.app_serving("shop.Stock") == "stock"
    assert world.control.naming.app_serving("stock") == "stock"
    assert (
        world.control.naming.why_nobody("shop.v1.Stokc")
        == "no app is known to serve shop.v1.Stokc; did you mean shop.Stock (stock)?"
    )


def test_same_claims_change_nothing(make: Make) -> None:
    world = make()
    for _ in range(2):
        world.control.registry_changed((entry("cart", "shop.Cart"),), "m")
    assert world.engine.invalidated == ["routes"]


def test_explicit_route_wins_over_a_claim(make: Make) -> None:
    world = make("--route", "shop.Cart=cart")
    world.control.names_changed(found(ONE))
    world.control.registry_changed((entry("thief", "shop.Cart"),), "m")
    assert named(world, "shop.Cart") == KEY
    assert world.control.naming.routes()[0] == "shop.Cart=cart"


def test_production_learns_nothing(make: Make) -> None:
    world = make(profile="production")
    world.control.registry_changed((entry("cart", "shop.Cart"),), "m")
    assert (world.engine.invalidated, world.engine.woken) == ([], [])
    assert named(world, "shop.Cart") == Cause.UNSUPPORTED.value


def test_unknown_service_waits_until_learning_has_settled(make: Make) -> None:
    world = make()
    held = world.decide("/shop.Cart/Get", **GRPC)
    assert isinstance(held, Hold)
    assert held.for_s == LEARNING_S
    world.control.learning_settled()
    assert world.engine.woken == [SERVICES_HOLD]
    assert named(world, "shop.Cart") == Cause.UNSUPPORTED.value
