"""What is made of the answers of sidecars."""

from datetime import UTC, datetime, timedelta
from typing import Any

from nameresolution.host_registry import Entry
from proxy.cli.checks.sidecars import (
    app_probe,
    check_app,
    check_certificates,
    check_sidecars,
    name_probes,
    sentry_of,
    turned_back,
    upstream_probes,
)
from proxy.cli.fleet import SidecarAnswer
from proxy.settings.version import VERSION

NOW = datetime(2026, 1, 2, tzinfo=UTC)
IDENTITY = {
    "mtls": True,
    "secondsLeft": 3_000.0,
    "spiffeId": "spiffe://public/ns/default/cart",
    "sentry": "local",
}


def sidecar(
    app_id: str = "cart", mesh: str = "m1", answer: dict[str, Any] | None = None, **facts: Any
) -> SidecarAnswer:
    entry = Entry(app_id=app_id, instance=f"{app_id}-1", peer_port=1, mesh=mesh, pid=7, **facts)
    told = {"ready": True, "engine": "native", "version": VERSION, "identity": IDENTITY}
    return SidecarAnswer(entry=entry, answer={**told, **(answer or {})})


def told(asked: list[SidecarAnswer]) -> list[tuple[str, str, str]]:
    return [(each.id, each.state, each.text) for each in check_sidecars(asked)]


def test_nothing_runs_is_no_failure() -> None:
    assert told([]) == [("sidecar", "ok", "no sidecar of postern runs")]


def test_sidecar_that_is_ready_takes_one_line() -> None:
    assert told([sidecar()]) == [("sidecar", "ok", "cart is ready (native engine, pid 7)")]


def test_silence_unreadiness_and_skew_are_told() -> None:
    silent = SidecarAnswer(entry=sidecar(admin_socket="/s").entry, answer=None)
    late = sidecar("web", answer={"ready": False, "notReady": ["app: down"], "version": "0.0.1"})
    assert told([silent, late]) == [
        ("sidecar", "failed", "cart: its sidecar (pid 7) does not answer on /s"),
        ("sidecar", "failed", "web is not ready: app: down"),
        ("version", "warning", f"web: its sidecar is version 0.0.1, this command {VERSION}"),
    ]


def test_foreign_app_policy_exporter_and_engine_are_told() -> None:
    odd = sidecar(
        "odd",
        answer={
            "engine": "portable",
            "app": {"port": 80, "heldBy": "nginx (pid 3)", "heldByForeign": True},
            "policy": {"lastError": "a.yaml:1: x\na.yaml:2: y", "warnings": ["w"]},
            "exporters": [
                {"name": "zipkin", "queued": 1, "exported": 2, "dropped": {"queue-full": 5}},
                {"name": "stdout", "queued": 0, "exported": 2, "dropped": {}},
            ],
        },
    )
    found = told([sidecar(), sidecar("web"), odd])
    assert [each[:2] for each in found[3:]] == [
        ("app", "failed"),
        ("policy", "failed"),
        ("policy", "failed"),
        ("policy", "warning"),
        ("exporter", "warning"),
        ("same-engine", "warning"),
    ]
    assert found[-2][2] == "odd: zipkin lost spans: 5 queue-full; 1 wait, 2 were taken"
    assert found[-1][2] == "odd with the portable engine, the others with another"


def certificates(*asked: SidecarAnswer, anchors: str = "m1") -> list[tuple[str, str, str]]:
    return [(each.id, each.state, each.text) for each in check_certificates(asked, anchors)]


def test_certificates_are_told_with_what_is_left() -> None:
    assert certificates(sidecar()) == [
        (
            "certificate",
            "ok",
            "cart is spiffe://public/ns/default/cart; its certificate lasts 50m and is renewed before then",
        )
    ]
    for identity, state, text in (
        ({"mtls": False}, "warning", "uses no mutual TLS"),
        ({"mtls": True, "lastError": "refused"}, "failed", "has no certificate: refused"),
        ({"mtls": True, "secondsLeft": -1}, "failed", "has ended"),
        ({"mtls": True, "secondsLeft": 5, "lastError": "gone"}, "warning", "ends in 5s: gone"),
    ):
        ((_, met, said),) = certificates(sidecar(answer={"identity": identity}))
        assert (met, text in said) == (state, True), said


def test_roots_must_be_the_same() -> None:
    assert certificates(sidecar(), sidecar("web"))[-1][1:] == ("ok", "all sidecars trust the same roots")
    other = sidecar("web", mesh="m2")
    assert "web: trusts other roots than the authority" in certificates(sidecar(), other)[-1][2]
    assert (
        "web: trusts other roots than the other"
        in certificates(sidecar(), sidecar("pay"), other, anchors="")[-1][2]
    )


def test_clock_that_was_turned_back_shows_in_what_is_left() -> None:
    def with_end(end: object) -> SidecarAnswer:
        return sidecar(answer={"identity": {**IDENTITY, "notAfter": end}})

    later = (NOW + timedelta(seconds=3_600)).isoformat()
    asked = [
        with_end(later),
        with_end((NOW + timedelta(seconds=3_001)).isoformat()),
        with_end("x"),
        with_end(None),
    ]
    assert turned_back(asked, NOW) == (("cart", 600.0),)
    assert turned_back([SidecarAnswer(entry=sidecar().entry, answer=None)], NOW) == ()


def test_names_of_apps_that_serve_are_looked_up_by_others() -> None:
    cart, web = sidecar(app_port=80, serving=True), sidecar("web", app_port=0)
    assert [probe.what for probe in name_probes([cart, web])] == ["name cart.default"]
    ups = sidecar("web", answer={"upstreams": {"cart": 1, "pay.shop": 2}})
    assert [probe.what for probe in upstream_probes(ups)] == ["name cart.default", "name pay.shop"]
    assert upstream_probes(sidecar()) == ()
    assert (sentry_of(cart.answer), sentry_of(None)) == ("local", "")


async def test_sidecar_that_does_not_look_a_name_up_is_told() -> None:
    (probe,) = name_probes([sidecar(app_port=80, admin_socket="/nowhere")])
    (found,) = await probe.run()
    assert (found.state, found.text) == (
        "failed",
        "cart.default: the sidecar of cart, which was to look it up, does not answer",
    )


async def test_app_that_is_only_a_caller_or_gone_is_told() -> None:
    (found,) = await app_probe(sidecar()).run()
    assert found.text == "cart has no app port: it only calls"
    (found,) = await check_app(sidecar().entry, {"app": {"port": 1, "protocol": "http"}})
    assert found.text == "the app at 127.0.0.1:1: nobody listens there (connection refused)"
