"""The scan of arguments: one dash or two, `=` or a word, switches, and what is out of place."""

import pytest

from proxy.settings.flags import FLAGS, help_text, scan

# Of daprd 1.18.3, cmd/daprd/options; --version, --build-info and --wait are questions, not settings.
DAPRD = """
    actors-disseminate-timeout actors-service allowed-origins app-binding-options-timeout
    app-channel-address app-health-check-path app-health-probe-interval app-health-probe-timeout
    app-health-threshold app-id app-max-concurrency app-port app-protocol app-ssl components-path config
    control-plane-address control-plane-namespace control-plane-trust-domain
    dapr-block-shutdown-duration dapr-graceful-shutdown-seconds dapr-grpc-port
    dapr-http-max-request-size dapr-http-port dapr-http-read-buffer-size
    dapr-internal-grpc-listen-address dapr-internal-grpc-port dapr-listen-addresses
    dapr-public-listen-address dapr-public-port disable-builtin-k8s-secret-store disable-init-endpoints
    enable-api-logging enable-app-health-check enable-metrics enable-mtls enable-profiling
    hot-reload-reconcile-interval log-as-json log-file log-level max-body-size metrics-listen-address
    metrics-port mode placement-host-address profile-listen-address profile-port read-buffer-size
    reminders-service resources-path scheduler-host-address scheduler-job-streams sentry-address
    sentry-request-jwt-audiences unix-domain-socket
"""


@pytest.mark.parametrize("words", [["--app-id", "a"], ["--app-id=a"], ["-app-id", "a"], ["-app-id=a"]])
def test_scan_accepts_one_dash_or_two_and_both_forms_of_value(words: list[str]) -> None:
    given = scan(words)
    assert given.last("app-id") == "a"
    assert not given.faults


def test_scan_takes_a_value_that_begins_with_a_dash() -> None:
    assert scan(["--app-max-concurrency", "-1"]).last("app-max-concurrency") == "-1"


def test_scan_keeps_an_empty_value_and_an_equals_sign_in_one() -> None:
    given = scan(["--dapr-internal-grpc-port=", "--upstream=cart=7001"])
    assert given.last("dapr-internal-grpc-port") == ""
    assert given.every("upstream") == ("cart=7001",)


def test_scan_keeps_all_values_in_order_and_the_last_counts() -> None:
    given = scan(["--config", "a", "--config", "b", "--app-id=x", "--app-id=y"])
    assert given.every("config") == ("a", "b")
    assert given.last("app-id") == "y"


def test_scan_reads_a_switch_without_eating_the_next_word() -> None:
    given = scan(["--enable-mtls", "--log-as-json=false"])
    assert given.last("enable-mtls") == "true"
    assert given.last("log-as-json") == "false"


def test_scan_of_a_switch_with_a_separate_value_says_how_to_write_it() -> None:
    assert "after `=`" in scan(["--enable-mtls", "true"]).strays[0]


def test_scan_of_an_unknown_flag_suggests_the_nearest() -> None:
    assert scan(["--dapr-htp-port=1"]).faults == [
        "--dapr-htp-port: unknown flag; did you mean --dapr-http-port?"
    ]
    assert scan(["--zzz"]).faults == ["--zzz: unknown flag"]


@pytest.mark.parametrize("words", [["serve"], ["-"], ["--"], [""]])
def test_scan_of_a_stray_word_is_a_fault(words: list[str]) -> None:
    assert "unexpected argument" in scan(words).strays[0]


def test_scan_of_a_flag_without_its_value_is_a_fault() -> None:
    assert scan(["--app-id"]).faults == ["--app-id: a value is missing, expected ID"]


def test_scan_names_every_fault() -> None:
    given = scan(["x", "--nope", "--app-id"])
    assert (len(given.faults), len(given.strays)) == (2, 1)


@pytest.mark.parametrize("text", ["", "-1", "0", "false"])
def test_unbuilt_flag_that_asks_for_nothing_is_not_named(text: str) -> None:
    assert scan([f"--placement-host-address={text}"]).unbuilt() == ()


def test_unbuilt_flag_is_named_once_however_often_given() -> None:
    given = scan(["--placement-host-address=a", "--placement-host-address=b", "--enable-profiling"])
    assert [flag.name for flag in given.unbuilt()] == ["placement-host-address", "enable-profiling"]


def test_every_flag_of_daprd_is_known() -> None:
    assert [name for name in DAPRD.split() if name not in FLAGS] == []


def test_help_names_every_flag() -> None:
    text = help_text("postern sidecar")
    assert all(f"--{name}" in text for name in FLAGS)
