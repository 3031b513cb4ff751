"""The sidecar's own API, asked directly: every route, and what is asked wrongly."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.admin import Admin, Health
from proxy.api.log_level import LogLevel
from proxy.api.server import LocalRequest
from proxy.contract.head import Header
from proxy.errors import TooManyTapsError
from proxy.settings.parsing import parse
from proxy.settings.values import Settings
from proxy.settings.version import VERSION
from proxy.wire.http_client import LocalResponse, LocalStream
from telemetry.log_ring import LogRing
from telemetry.metrics import Meters
from telemetry.tracing import Tracer
from tests.unit.telemetry.building import SAMPLED, TRACE, a_span

PARTS = ("listeners", "identity", "app")


def settings_of(*flags: str) -> Settings:
    return parse(["--app-id", "web", "--app-port", "8080", *flags], {"POSTERN_HOME": "/nowhere"})


async def _no_lines() -> AsyncGenerator[bytes]:
    for line in (b"a\n",):
        yield line


class Api:
    """An admin API, what it was told to do, and one way to ask it."""

    def __init__(
        self,
        *flags: str,
        parts: tuple[str, ...] = PARTS,
        resiliencies: tuple[str, ...] = (),
        closed: frozenset[str] = frozenset(),
    ) -> None:
        self.health = Health(parts)
        self.stopped: list[str] = []
        self.tracer = Tracer("web")
        self.asked_for: list[str | None] = []
        self.reports = 0
        self.admin = Admin(
            settings_of(*flags),
            self.health,
            Meters("web", "default"),
            self.tracer,
            engine="portable",
            report=self._note_report,
            status=lambda: {
                "appId": "web",
                "identity": {"spiffeId": "spiffe://public/ns/default/web"},
                "engineStats": {"connections": 3},
            },
            dump=lambda: {"appId": "web", "retryBudgets": []},
            compared=self._compared,
            reload=self._reload,
            listening=lambda: {"http": 3501},
            explain=lambda missing: [f"{part}: why" for part in missing],
            endpoints=self._endpoints,
            decision=lambda query: {"asked": sorted(query)},
            resolve=self._resolve,
            resources=lambda: {
                "resiliencies": [{"name": name} for name in resiliencies],
                "httpEndpoints": [],
            },
            tap=self._tap,
            log_level=LogLevel("info"),
            log_ring=LogRing(),
            is_closed=closed.__contains__,
            shutdown=self.stopped.append,
            abort=lambda: self.stopped.append("at once"),
        )

    async def _compared(self) -> dict[str, Any]:
        return {"result": "nothing"}

    async def _reload(self) -> dict[str, Any]:
        raise TimeoutError

    async def _note_report(self) -> None:
        self.reports += 1

    def _tap(self, query: Mapping[str, list[str]]) -> AsyncGenerator[bytes]:
        if "bad" in query:
            raise ValueError("bad: no such filter")
        if "full" in query:
            raise TooManyTapsError(8)
        return _no_lines()

    def _endpoints(self, app: str | None) -> dict[str, Any]:
        self.asked_for.append(app)
        return {"cart.default": {}}

    async def _resolve(self, app: str) -> dict[str, Any]:
        if not app:
            raise ValueError("'' names no app")
        return {"name": app}

    async def ask(
        self,
        target: str,
        method: str = "GET",
        body: bytes = b"",
        *,
        port: str = "api",
        headers: tuple[Header, ...] = (),
    ) -> LocalResponse:
        handler = getattr(self.admin, port)
        answer = await handler(LocalRequest(method, target, headers, body))
        assert isinstance(answer, LocalResponse)
        return answer


def said(answer: LocalResponse) -> Any:
    assert (b"content-type", b"application/json") in answer.headers
    return json.loads(answer.body)


# --- health


async def test_health_names_what_is_missing_then_nothing() -> None:
    api = Api()
    answer = await api.ask("/v1.0/healthz")
    assert answer.status == 500
    assert said(answer) == {
        "errorCode": "ERR_HEALTH_NOT_READY",
        "message": "not ready: listeners: why; identity: why; app: why",
    }
    for part in PARTS:
        api.health.ready(part)
    answer = await api.ask("/v1.0/healthz")
    assert (answer.status, answer.body) == (204, b"")


async def test_outbound_health_does_not_wait_for_the_app() -> None:
    api = Api()
    answer = await api.ask("/v1.0/healthz/outbound")
    assert said(answer)["errorCode"] == "ERR_OUTBOUND_HEALTH_NOT_READY"
    assert "app" not in said(answer)["message"]
    api.health.ready("listeners")
    api.health.ready("identity")
    assert (await api.ask("/v1.0/healthz/outbound")).status == 204
    assert (await api.ask("/v1.0/healthz")).status == 500


async def test_leaving_is_not_ready() -> None:
    api = Api(parts=())
    api.health.leave()
    for target in ("/v1.0/healthz", "/v1.0/healthz/outbound"):
        answer = await api.ask(target)
        assert answer.status == 500
        assert "leaving" in said(answer)["message"]


async def test_changes_of_health_are_told_until_the_end() -> None:
    gone: list[str] = []
    health = Health(("identity", "app"), lost=lambda: tuple(gone))
    changes, without_app = health.changes(), health.changes(but=("app",))
    assert [await anext(changes), await anext(without_app)] == [False, False]
    health.ready("identity")
    assert await anext(without_app) is True
    health.ready("app")
    assert await anext(changes) is True
    gone.append("identity")
    health.look()
    assert [await anext(changes), await anext(without_app)] == [False, False]
    gone.clear()
    health.look()
    assert await anext(changes) is True
    health.leave()
    assert [ready async for ready in changes] == [False]
    assert [ready async for ready in without_app] == []
    assert [ready async for ready in health.changes()] == [False]


async def test_change_of_health_that_was_taken_back_is_not_told() -> None:
    gone: list[str] = []
    health = Health((), lost=lambda: tuple(gone))
    changes = health.changes()
    assert await anext(changes) is True
    for parts in (["identity"], []):
        gone[:] = parts
        health.look()
    health.leave()
    assert [ready async for ready in changes] == [False]


def test_part_may_be_ready_twice_and_unknown() -> None:
    health = Health(("a",))
    for part in ("a", "a", "never heard of"):
        health.ready(part)
    assert health.missing() == []


def test_part_that_is_lost_is_missing_until_it_is_there_again() -> None:
    lost: list[str] = []
    health = Health(("identity",), lambda: tuple(lost))
    health.ready("identity")
    assert health.missing() == []
    lost.append("identity")
    assert (health.missing(), health.missing(but=("identity",))) == (["identity"], [])
    lost.clear()
    assert health.missing() == []


@pytest.mark.parametrize(("query", "status"), [("web", 204), ("other", 500), ("", 204)])
async def test_health_of_another_app_is_refused(query: str, status: int) -> None:
    answer = await Api(parts=()).ask(f"/v1.0/healthz?appid={query}")
    assert answer.status == status
    if status == 500:
        assert said(answer)["errorCode"] == "ERR_HEALTH_APPID_NOT_MATCH"


@pytest.mark.parametrize(
    "target",
    ["/v1.0/healthz/", "//v1.0//healthz", "/v1.0/./healthz", "//[/../v1.0/healthz"],
)
async def test_routes_are_found_by_their_clean_path(target: str) -> None:
    assert (await Api(parts=()).ask(target)).status == 204


@pytest.mark.parametrize("target", ["/v1.0/%68ealthz", "/v1.0%2Fhealthz", "/x/%2e%2e/v1.0/healthz"])
async def test_route_in_escapes_is_none(target: str) -> None:
    """The edge, whose checks go by the class of a path, reads it alike."""
    assert (await Api(parts=()).ask(target)).status == 404


@pytest.mark.parametrize("port", ["api", "admin", "public"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(("GET", "/"), ("GET", "/v1.0"), ("GET", "/v1.0/nothing"), ("POST", "/v1.0/metadata")),
        *(("DELETE", "/v1.0/metadata/x"), ("GET", "/v1.0/shutdown"), ("GET", "//[x"), ("GET", "*")),
        *(("GET", "/%zz"), ("GET", "/a%2fb"), ("GET", "/v1.0/healthz#x"), ("GET", "nonsense"), ("GET", "")),
    ],
)
async def test_what_is_no_route_is_404(port: str, method: str, target: str) -> None:
    answer = await Api().ask(target, method, port=port)
    assert answer.status == 404
    assert said(answer)["errorCode"] in {"ERR_DIRECT_INVOKE", "ERR_NOT_FOUND"}


@given(st.text(st.characters(max_codepoint=255), max_size=30), st.sampled_from(["api", "admin", "public"]))
async def test_no_target_breaks_a_port(target: str, port: str) -> None:
    assert (await Api().ask(target, port=port)).status in {200, 404}


# --- metadata


async def test_metadata_is_that_of_the_settings() -> None:
    api = Api("--app-max-concurrency", "7", "--enable-app-health-check", "--app-health-check-path", "/up")
    found = said(await api.ask("/v1.0/metadata"))
    assert found["id"] == "web"
    assert found["actorRuntime"] == {"runtimeStatus": "DISABLED", "hostReady": False}
    assert found["extended"]["daprRuntimeVersion"] == found["runtimeVersion"]
    assert found["appConnectionProperties"] == {
        "port": 8080,
        "protocol": "http",
        "channelAddress": "127.0.0.1",
        "maxConcurrency": 7,
        "health": {
            "healthProbeInterval": "5s",
            "healthProbeTimeout": "500ms",
            "healthThreshold": 3,
            "healthCheckPath": "/up",
        },
    }
    assert said(await api.ask("/metadata", port="admin")) == found


async def test_metadata_leaves_out_what_is_not_there() -> None:
    properties = said(await Api().ask("/v1.0/metadata"))["appConnectionProperties"]
    assert set(properties) == {"port", "protocol", "channelAddress"}
    api = Api("--app-protocol", "grpc", "--enable-app-health-check")
    health = said(await api.ask("/v1.0/metadata"))["appConnectionProperties"]["health"]
    assert "healthCheckPath" not in health


async def test_metadata_of_a_sidecar_without_an_app_has_no_port() -> None:
    found = said(await Api("--app-port", "0").ask("/v1.0/metadata"))
    assert found["appConnectionProperties"] == {"protocol": "http", "channelAddress": "127.0.0.1"}
    assert found["extended"]["posternEngine"] == "portable"


async def test_metadata_tells_a_version_that_dapr_s_tools_can_compare_under_its_name() -> None:
    assert said(await Api("--profile=daprd").ask("/v1.0/metadata"))["runtimeVersion"].startswith("1.18.")
    assert said(await Api().ask("/v1.0/metadata"))["runtimeVersion"] == VERSION


async def test_metadata_names_the_resources_in_force_and_leaves_out_empty_lists() -> None:
    found = said(await Api(resiliencies=("mesh", "late")).ask("/v1.0/metadata"))
    assert found["resiliencies"] == [{"name": "mesh"}, {"name": "late"}]
    lists = {"actors", "components", "enabledFeatures", "httpEndpoints", "subscriptions"}
    assert not lists & found.keys()
    assert "resiliencies" not in said(await Api().ask("/v1.0/metadata"))


@pytest.mark.parametrize(
    ("port", "prefix"), [("api", "/v1.0/metadata/"), ("admin", "/metadata/"), ("admin", "/v1.0/metadata/")]
)
@pytest.mark.parametrize(
    ("raw", "key"), [("colour", "colour"), ("a%20b", "a b"), ("a+b", "a b"), ("%C3%A4", "ä")]
)
async def test_metadata_that_was_set_is_shown(port: str, prefix: str, raw: str, key: str) -> None:
    api = Api()
    answer = await api.ask(prefix + raw, "PUT", "grün".encode(), port=port)
    assert (answer.status, answer.body) == (204, b"")
    assert said(await api.ask("/v1.0/metadata"))["extended"][key] == "grün"


async def test_metadata_is_bounded_in_number_and_size() -> None:
    api = Api()
    for number in range(64):
        assert (await api.ask(f"/v1.0/metadata/{number}", "PUT", b"x")).status == 204
    assert (await api.ask("/v1.0/metadata/64", "PUT", b"x")).status == 400
    assert (await api.ask("/v1.0/metadata/3", "PUT", b"y" * 4096)).status == 204
    assert (await api.ask("/v1.0/metadata/3", "PUT", b"y" * 4097)).status == 400
    assert len(api.admin.extended["3"]) == 4096


async def test_metadata_value_that_is_no_text_is_shown_as_far_as_it_is() -> None:
    api = Api()
    await api.ask("/v1.0/metadata/x", "PUT", b"a\xffb")
    assert said(await api.ask("/v1.0/metadata"))["extended"]["x"] == "a\ufffdb"


# --- the rest of the admin socket


async def test_shutdown_says_who_asked() -> None:
    api = Api()
    assert (await api.ask("/v1.0/shutdown", "POST")).status == 204
    assert (await api.ask("/shutdown", "POST", port="admin")).status == 204
    assert api.stopped == ["shutdown API", "postern stop"]
    assert (await api.ask("/shutdown", "POST")).status == 404  # on the admin socket only


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"true", "at once"), (b"True", "at once"), (b"false", "shutdown API"), (b"", "shutdown API")],
)
async def test_shutdown_may_be_forced(value: bytes, expected: str) -> None:
    api = Api()
    answer = await api.ask("/v1.0/shutdown", "POST", headers=((b"dapr-force-shutdown", value),))
    assert (answer.status, api.stopped) == (204, [expected])


async def test_status_and_endpoints_are_what_they_are_told() -> None:
    api = Api()
    assert said(await api.ask("/status", port="admin"))["appId"] == "web"
    assert said(await api.ask("/endpoints", port="admin")) == {"cart.default": {}}
    await api.ask("/endpoints?app=cart", port="admin")
    assert api.asked_for == [None, "cart"]


@pytest.mark.parametrize("port", ["admin", "metrics"])
@pytest.mark.parametrize("accept", [b"", b"application/openmetrics-text; version=1.0.0", b"\xff"])
async def test_metrics_are_prometheus_text(port: str, accept: bytes) -> None:
    answer = await Api().ask("/metrics", port=port, headers=((b"accept", accept),))
    assert answer.status == 200
    assert b"# TYPE" in answer.body
    expected = b"openmetrics" if b"openmetrics" in accept else b"text/plain"
    assert expected in dict(answer.headers)[b"content-type"]


async def test_trace_is_the_last_or_the_named_one() -> None:
    api = Api()
    assert said(await api.ask("/trace?last=1", port="admin")) == {"traceId": "", "spans": []}
    other = SAMPLED._replace(trace_id=0x77)
    api.tracer.record(a_span(context=SAMPLED))
    api.tracer.record(a_span(context=other))
    last = said(await api.ask("/trace?last=1", port="admin"))
    assert last["traceId"] == f"{0x77:032x}"
    assert [span["traceId"] for span in last["spans"]] == [last["traceId"]]
    for wanted in (f"{TRACE:x}", f"{TRACE:X}"):
        named = said(await api.ask(f"/trace?id={wanted}", port="admin"))
        assert named["traceId"] == f"{TRACE:032x}"
        assert len(named["spans"]) == 1
    unknown = said(await api.ask("/trace?id=123", port="admin"))
    assert (unknown["traceId"], unknown["spans"]) == (f"{0x123:032x}", [])


@pytest.mark.parametrize("wanted", ["xyz", "-1", "0x12", "1_0", "%2012", "f" * 33])
async def test_trace_id_that_is_none_is_told(wanted: str) -> None:
    answer = await Api().ask(f"/trace?id={wanted}", port="admin")
    assert answer.status == 400
    assert "hex digits" in said(answer)["message"]


# --- the public port


@pytest.mark.parametrize("target", ["/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/healthz?appid=web"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_public_port_serves_health(target: str, method: str) -> None:
    assert (await Api(parts=()).ask(target, method, port="public")).status == 204


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_public_port_serves_metadata(method: str) -> None:
    assert said(await Api().ask("/v1.0/metadata", method, port="public"))["id"] == "web"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(("PUT", "/v1.0/metadata/x"), ("POST", "/v1.0/shutdown"), ("GET", "/status"), ("GET", "/metrics")),
        *(("GET", "/v1.0/metadata/x"), ("POST", "/v1.0/healthz"), ("GET", "/v1.0/healthzz")),
    ],
)
async def test_public_port_sets_and_shows_nothing_else(method: str, target: str) -> None:
    api = Api(parts=())
    answer = await api.ask(target, method, b"x", port="public")
    assert (answer.status, said(answer)["errorCode"]) == (404, "ERR_NOT_FOUND")
    assert (api.stopped, api.admin.extended) == ([], {})


async def test_public_port_has_no_metadata_that_is_closed() -> None:
    api = Api(closed=frozenset({"metadata"}))
    assert (await api.ask("/v1.0/metadata", port="public")).status == 404
    assert (await api.ask("/v1.0/metadata/", port="public")).status == 404
    assert (await api.ask("/metadata", port="admin")).status == 200
    assert (await Api().ask("/v1.0/metadata", port="public")).status == 200


async def test_name_is_resolved_on_the_private_socket_alone() -> None:
    scene = Api()
    assert said(await scene.ask("/resolve?app=cart.default", port="admin")) == {"name": "cart.default"}
    assert (await scene.ask("/resolve", port="admin")).status == 400
    assert (await scene.ask("/resolve?app=cart")).status == 404


async def test_tap_goes_on_and_is_for_the_admin_socket_alone() -> None:
    api = Api()
    answer = await api.admin.admin(LocalRequest("GET", "/postern/v1/tap?to=cart"))
    assert isinstance(answer, LocalStream)
    assert [line async for line in answer.pieces] == [b"a\n"]
    assert (await api.ask("/postern/v1/tap")).status == 404
    assert (await api.ask("/postern/v1/tap", port="public")).status == 404


@pytest.mark.parametrize(
    ("query", "status", "said"), [("bad=1", 400, "no such filter"), ("full=1", 429, "8 taps")]
)
async def test_tap_that_can_not_be_opened_says_why(query: str, status: int, said: str) -> None:
    answer = await Api().ask(f"/postern/v1/tap?{query}", port="admin")
    assert answer.status == status
    assert said in answer.body.decode()


async def test_edges_say_whose_they_are_and_what_was_answered_before() -> None:
    api = Api()
    answer = await api.ask("/postern/v1/edges", port="admin")
    told = json.loads(answer.body)
    assert (told["app_id"], told["namespace"], told["connections"]) == ("web", "default", 3)
    assert (told["mtls"], told["spiffe_id"]) == (True, "spiffe://public/ns/default/web")
    assert told["routes"] == []
    assert api.reports == 1
    assert (await api.ask("/postern/v1/edges")).status == 404
