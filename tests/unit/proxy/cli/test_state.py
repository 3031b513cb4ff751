"""Tables of `postern status -o wide`."""

import pytest

from nameresolution.host_registry import Entry
from proxy.cli.fleet import SidecarAnswer
from proxy.cli.state import put_sections

ENTRY = Entry(app_id="web", instance="i", peer_port=1)
ANSWER = {
    "identity": {
        "serial": "ab1",
        "spiffeId": "spiffe://a/ns/b/web",
        "issuer": "CN=issuer",
        "notAfter": "2026",
    },
    "policies": {
        "targets": [
            {
                "target": "cart",
                "timeoutS": 2.0,
                "retry": {"name": "often", "maxRetries": -1, "kind": "constant", "durationS": 0.5},
                "retryBudget": {"ratio": 0.2, "minPerS": 10.0, "ttlS": 10.0},
                "concurrency": {"limit": None, "queue": 4},
                "throttle": {"ratio": 2.0},
                "from": [{"policy": "targets.apps", "name": "cart", "resource": "mesh", "at": "r.yaml:7"}]
                * 2,
            },
            {"target": "*", "retryBudget": {"maxTokens": 4.0, "tokenRatio": 1.0}, "from": []},
        ],
        "inbound": {
            "rates": [{"name": "all", "requests": 5, "perS": 1.0, "burst": 5, "shared": True}],
            "lag": {"aboveS": 0.25, "forS": 2.0},
            "from": [],
        },
    },
    "retryBudgets": [{"target": "cart.default", "kind": "share", "left": 0.0, "full": 100.0}],
    "limits": [{"name": "rate:all", "inside": 0, "waiting": 0, "refused": {"rate": 3, "lag": 0}}],
    "exporters": [{"name": "otlp", "collector": "h:1", "queued": 0, "exported": 2, "dropped": {"full": 1}}],
}


def test_each_part_that_is_there_has_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    put_sections([SidecarAnswer(entry=ENTRY, answer=ANSWER)])
    tables = [
        [line.split("  ")[0] for line in table.splitlines()]
        for table in capsys.readouterr().out.strip().split("\n\n")
    ]
    assert tables == [
        ["CERTIFICATE", "ab1"],
        ["TARGET", "cart", "*"],
        ["LIMIT OF CALLS TO THE APP", "rate all", "lag"],
        ["RETRY BUDGET", "cart.default"],
        ["LIMIT", "rate:all"],
        ["EXPORTER", "otlp"],
    ]


def test_policies_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    put_sections([SidecarAnswer(entry=ENTRY, answer=ANSWER)])
    shown = capsys.readouterr().out
    for text in (
        "often: without limit, constant 0.5 s",
        "0.2 of calls, 10.0 a second",
        "4.0 tokens, 1.0 a success",
        "adaptive at once, 4 wait, throttled at 1 in 2.0",
        "targets.apps cart at r.yaml:7 (mesh)",
        "built in",
        "5 in 1 s, 5 at once, of all together",
        "late by 0.25 s for 2 s",
        "rate 3",
        "full 1",
    ):
        assert text in shown, text
    assert shown.count("r.yaml:7") == 1


def test_nothing_is_shown_of_who_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    put_sections([SidecarAnswer(entry=ENTRY, answer=None), SidecarAnswer(entry=ENTRY, answer={"limits": 3})])
    assert not capsys.readouterr().out
