"""Who is named: app-ids, path tables, authorities, origins, service routes."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deciding.callee import (
    API_VERBS,
    Callee,
    OutPaths,
    RouteError,
    Services,
    local_name,
    parse_callee,
    parse_key,
    parse_routes,
)
from proxy.wire.target import BadTargetError, parse
from tests.support.vectors import Text, Vector, spelt, vectors

SEGMENTS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=64)


# --- app-ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cart", ("cart", "shop")),
        ("cart.other", ("cart", "other")),
        ("Cart_2", ("Cart_2", "shop")),
        ("a" * 64, ("a" * 64, "shop")),
        ("1", ("1", "shop")),
    ],
)
def test_callee_is_an_id_in_a_namespace(text: str, expected: tuple[str, str]) -> None:
    callee = parse_callee(text, "shop")
    assert callee is not None
    assert (callee.app_id, callee.namespace) == expected
    assert callee.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "cart.",
        ".shop",
        "a.b.c",
        "a" * 65,
        "a." + "b" * 65,
        "cart\n",
        "ca rt",
        "cart/x",
        "ca%72t",
        "http://cart",
        "cärt",
        "\x00long",
    ],
)
def test_callee_that_is_no_app_id_is_none(text: str) -> None:
    assert parse_callee(text, "shop") is None


@given(SEGMENTS, SEGMENTS)
def test_cluster_key_names_the_callee_again(app_id: str, namespace: str) -> None:
    callee = Callee(app_id, namespace, "as written")
    assert parse_key(callee.key) == (app_id, namespace)
    assert parse_callee(callee.name, "elsewhere") == Callee(app_id, namespace, callee.name)


# --- path tables


class Naming(Vector, frozen=True, kw_only=True):
    path: str
    class_: list[str] = msgspec.field(name="class")
    app_as_sent: str = ""


@vectors("targets", "naming", Naming)
def test_path_class_of_the_apps_side(vector: Naming) -> None:
    assert OutPaths().classify(vector.path) == tuple(vector.class_)


def test_every_own_route_has_a_verb() -> None:
    shown = {OutPaths().classify(f"/v1.0/{path}")[1] for path in ("healthz", "healthz/outbound", "metadata")}
    assert shown | {"metadata-key", "shutdown"} == set(API_VERBS)


@given(SEGMENTS, st.text("abc/.%2e", max_size=20))
def test_path_class_holds_nothing_of_the_method(app: str, method: str) -> None:
    try:
        path = parse(f"/v1.0/invoke/{app}/method/x{method}".encode()).path
    except BadTargetError:
        return
    assert OutPaths().classify(path) == ("invoke", app)


class GrpcPath(Vector, frozen=True, kw_only=True):
    path: Text
    service: Text


@vectors("targets", "services", GrpcPath)
def test_service_of_a_grpc_path(vector: GrpcPath) -> None:
    assert Services().classify(spelt(vector.path)) == spelt(vector.service)


# --- authorities


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("cart.localhost", "cart"),
        ("cart.localhost:50001", "cart"),
        ("cart.localhost.", "cart"),
        ("cart.shop.localhost:1", "cart.shop"),
        ("localhost", None),
        (".localhost", None),
        ("localhost:3500", None),
        ("cart.localhost.example", None),
        ("cartlocalhost", None),
        ("", None),
    ],
)
def test_name_below_localhost(authority: str, expected: str | None) -> None:
    assert local_name(authority) == expected


# --- service routes


def test_exact_route_wins_over_patterns_and_learnt() -> None:
    routes = parse_routes(("shop.{Name}Service={name}", "shop.CartService=special")).with_learnt(
        {"shop.CartService": frozenset({"thief"}), "x.Y": frozenset({"learnt"})}
    )
    assert routes.find("shop.CartService") == "special"
    assert routes.find("shop.OrderService") == "order"
    assert routes.find("x.Y") == "learnt"
    assert routes.find("x.Z") is None


@pytest.mark.parametrize(
    ("route", "service", "expected"),
    [
        ("shop.{Name}Service={name}", "shop.ProductCatalogService", "product-catalog"),
        ("shop.{Name}Service={Name}", "shop.ProductCatalogService", "ProductCatalog"),
        ("shop.{name}Service={NAME}", "shop.CartService", "Cart"),
        ("{Pkg}.{Name}={name}.{pkg}", "shop.Cart", "cart.shop"),
        ("{Name}Service={name}svc", "V2CartService", "v2-cartsvc"),
        ("shop.{Name}Service={name}", "shop.Service", None),
        ("shop.{Name}Service={name}", "shopXCartService", None),
        ("shop.{Name}Service={name}", "shop.a.CartService", None),
        ("shop.{Name}={name}", "shop.Cart.More", None),
        ("shop.{Name}=all", "shop.Cart", "all"),
    ],
)
def test_pattern_fills_the_app(route: str, service: str, expected: str | None) -> None:
    assert parse_routes((route,)).find(service) == expected


@pytest.mark.parametrize("service", ["grpc.health.v1.Health", "dapr.proto.runtime.v1.Dapr"])
def test_infrastructure_services_are_nobodys(service: str) -> None:
    routes = parse_routes((f"{service}=cart", "{Rest}=cart"))
    assert routes.with_learnt({service: frozenset({"cart"})}).find(service) is None


@pytest.mark.parametrize(
    "route",
    [
        *("", "x", "=cart", "x=", "shop.Cart=a.b.c", "shop.Cart=a b", "shop.{Name}={other}"),
        *("shop.{Name}.{name}=x", "{A}{A}={a}", "shop.{Name}={name}.a.b", "shop.{Name}=no good"),
    ],
)
def test_route_that_means_nothing_is_refused(route: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse_routes((route,))
    assert repr(route) in str(caught.value)


def test_two_claimants_are_a_conflict_unless_a_route_says_which() -> None:
    routes = parse_routes(("x.Y=a",)).with_learnt(
        {"x.Y": frozenset({"a", "b"}), "x.Z": frozenset({"c", "b"}), "x.W": frozenset({"a"})}
    )
    assert routes.claimants("x.Z") == ("b", "c")
    assert routes.claimants("x.W") == ()
    assert routes.find("x.Z") is None
    assert routes.find("x.Y") == "a"


def test_learnt_claims_are_replaced_not_added() -> None:
    first = parse_routes(()).with_learnt({"x.Y": frozenset({"a"})})
    assert first.with_learnt({}).find("x.Y") is None


def test_service_name_of_any_length_is_no_key() -> None:
    """The class of a path is kept: a peer must not be able to make it large."""
    assert Services().classify("/" + "a" * 256 + "/M") == "a" * 256
    assert Services().classify("/" + "a" * 257 + "/M") == ""
