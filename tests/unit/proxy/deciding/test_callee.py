"""Who is named: app-ids, path tables, authorities, origins, service routes."""

import string

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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("app",)),
        ("/items", ("app",)),
        ("/v1.0", ("v1",)),
        ("/v1.0/state/x", ("block", "state")),
        ("/v1.0x", ("app",)),
        ("/v1.0-beta1/workflows", ("block", "workflows")),
        ("/v1.0-gamma/state", ("app",)),
        ("/v1.0/states", ("v1",)),
        ("/v1.0x/invoke/cart/method/a", ("app",)),
        ("/V1.0/invoke/cart/method/a", ("app",)),
        ("/x/v1.0/healthz", ("app",)),
        ("/v1.0/healthz", ("api", "healthz")),
        ("/v1.0/healthz/outbound", ("api", "outbound")),
        ("/v1.0/healthz/other", ("v1",)),
        ("/v1.0/metadata", ("api", "metadata")),
        ("/v1.0/metadata/key", ("api", "metadata-key")),
        ("/v1.0/metadata/a/b", ("v1",)),
        ("/v1.0/shutdown", ("api", "shutdown")),
        ("/v1.0/shutdown/now", ("v1",)),
        ("/v1.0/invoke/cart/method/items", ("invoke", "cart")),
        ("/v1.0/invoke/cart/method/", ("invoke", "cart")),
        ("/v1.0/invoke/a/method", ("invoke", "a")),
        ("/v1.0/invoke/a/method/x/method/y", ("invoke", "a")),
        ("/v1.0/invoke/a/method/method", ("invoke", "a")),
        ("/v1.0/invoke/method/method/x", ("invoke", "method")),
        ("/v1.0/invoke/a/b/method/x", ("invoke", "a/b")),
        ("/v1.0/invoke//method/x", ("v1",)),
        ("/v1.0/invoke/method/x", ("v1",)),
        ("/v1.0/invoke/a/methods/x", ("v1",)),
        ("/v1.0/invoke/a/xmethod", ("v1",)),
        ("/v1.0/invoke/a", ("v1",)),
        ("/v1.0/invoke", ("v1",)),
        ("/v1.0/invoke/c%61rt%2Eshop/method/a%2Fb", ("invoke", "cart.shop")),
        ("/v1.0/invoke/http%3A%2F%2Fh/method/a", ("invoke", "http://h")),
        ("/v1.0/invoke/cart/method/../../../healthz", ("invoke", "cart")),
        ("//v1.0//invoke//cart/method/x", ("invoke", "cart")),
        ("/v1.0/invoke/cart%2Fmethod/x", ("v1",)),
        ("//v1.0/./healthz/", ("api", "healthz")),
        ("/v1.0/%68ealthz", ("v1",)),
        ("/v1.0%2Fhealthz", ("app",)),
        ("/%761.0/shutdown", ("app",)),
        ("/v1.0/invoke/" + "a" * 256 + "/method/x", ("invoke", "a" * 256)),
        ("/v1.0/invoke/" + "a" * 257 + "/method/x", ("v1",)),
    ],
)
def test_path_class_of_the_apps_side(path: str, expected: tuple[str, ...]) -> None:
    assert OutPaths().classify(path) == expected


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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/shop.Cart/Get", "shop.Cart"),
        ("/Cart/Get", "Cart"),
        ("/a_b.C1/Get_2", "a_b.C1"),
        ("/", ""),
        ("/Cart", ""),
        ("/Cart/", ""),
        ("/a/b/c", ""),
        ("//Get", ""),
        ("/a.B/C/", ""),
        ("/a.B/C?d", ""),
        ("/a.B/%43", ""),
        ("/a.B/..", ""),
        ("/./C", ""),
        ("/../C", ""),
        ("/..B/.C", "..B"),
        ("/shop Cart/Get", ""),
        ("/shöp.Cart/Get", ""),
        ("/shop.Cart/Get\n", ""),
        ("shop.Cart/Get", ""),
    ],
)
def test_service_of_a_grpc_path(path: str, expected: str) -> None:
    assert Services().classify(path) == expected


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
