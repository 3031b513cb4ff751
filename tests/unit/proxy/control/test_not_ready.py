"""Reasons why a sidecar is not ready: what, where, and what to do."""

import pytest

from proxy.control.app_watch import AppWatch
from proxy.control.not_ready import reasons
from proxy.settings.parsing import parse
from proxy.settings.values import Settings


def settings_of(*flags: str) -> Settings:
    return parse(["--app-id", "web", "--app-port", "8080", *flags], {"POSTERN_HOME": "/nowhere"})


def told(part: str, settings: Settings, watch: AppWatch | None = None, **identity: str) -> str:
    (line,) = reasons([part], settings, identity, watch or AppWatch(settings, lambda: None))
    return line


def test_app_that_is_not_there_is_told_with_its_address() -> None:
    assert told("app", settings_of()) == (
        "app: nothing listens on 127.0.0.1:8080 yet; start the app there, or set --app-port"
    )


def test_app_that_takes_calls_is_no_reason() -> None:
    settings = settings_of()
    watch = AppWatch(settings, lambda: None)
    watch.is_open = True
    assert reasons(["app"], settings, {}, watch) == []
    assert reasons(["app"], parse(["--app-id=web"], {"POSTERN_HOME": "/nowhere"}), {}, watch) == []


@pytest.mark.parametrize(
    ("flags", "changes", "words"),
    [
        (("--app-protocol=grpc",), {"mismatch": "speaks HTTP/1.1, not HTTP/2"}, ("speaks HTTP/1.1", "--app-protocol is grpc")),
        (("--enable-app-health-check",), {"healthy": False}, ("health check fails at 127.0.0.1:8080/healthz",)),
        (("--enable-app-health-check", "--app-protocol=grpc"), {"healthy": False}, ("AppCallbackHealthCheck", "fails at 127.0.0.1:8080;")),
    ],
)  # fmt: skip
def test_app_that_listens_and_takes_no_calls_is_told_with_the_cause(
    flags: tuple[str, ...], changes: dict[str, object], words: tuple[str, ...]
) -> None:
    settings = settings_of(*flags)
    watch = AppWatch(settings, lambda: None)
    watch.is_open = True
    for name, value in changes.items():
        setattr(watch, name, value)
    line = told("app", settings, watch)
    assert all(word in line for word in words)


def test_identity_names_the_sentry_and_its_last_word() -> None:
    assert "the local sentry issued none: has not answered yet" in told("identity", settings_of())
    line = told("identity", settings_of(), state="expired", last_error="connection refused")
    assert "its certificate has expired" in line
    assert "connection refused" in line


def test_other_parts_have_a_reason_too() -> None:
    assert told("leaving", settings_of()) == "leaving: it is shutting down"
    assert told("listeners", settings_of()).startswith("listeners: ")
