"""What `postern resolve` prints."""

from typing import Any

from proxy.cli.resolve import render

SOURCE: dict[str, Any] = {"tookMs": 1.0, "endpoints": [], "problem": "no entry", "fix": "", "keptForS": None}


def test_sources_stand_in_order_with_their_times_and_reasons() -> None:
    told: dict[str, Any] = {
        "name": "cart.default",
        "by": "web.default",
        "sources": [
            {**SOURCE, "source": "file", "tookMs": None},
            {
                **SOURCE,
                "source": "mdns",
                "endpoints": [
                    {"address": "1:1", "ignored": ""},
                    {"address": "2:2", "ignored": "because \x1b[2J"},
                ],
                "keptForS": 75,
            },
        ],
        "endpoints": [{"address": "1:1", "verdict": "preferred", "why": "answered before", "source": "mdns"}],
        "stale": True,
        "near": [],
    }
    assert list(render(told, 100)) == [
        "✓ cart.default: web.default calls 1:1; stale: a source has failed since",
        "",
        "sources",
        "file          -  no entry",
        "mdns     1.0 ms  1:1",
        "                 2:2 is ignored because \\x1b[2J (last heard 1m ago)",
        "",
        "endpoints",
        "1:1  preferred  answered before (mdns)",
    ]


def test_name_that_nobody_has_is_told_with_those_near_it() -> None:
    told: dict[str, Any] = {
        "name": "crat.default",
        "by": "web.default",
        "sources": [{**SOURCE, "source": "mdns", "fix": "is it running?"}],
        "endpoints": [],
        "stale": False,
        "near": ["cart"],
    }
    assert list(render(told, 100)) == [
        "✗ crat.default: web.default finds nobody; did you mean 'cart'?",
        "",
        "sources",
        "mdns     1.0 ms  no entry",
        "                 → is it running?",
    ]
