"""Prometheus's own judgement of metric names: `promtool check metrics`, with Dapr's names excepted."""

import re
import subprocess

from tests.support.tools import tool

# Dashboards and alerts of Dapr's users ask for these names, so they stay.
_EXCEPTED = (
    (r"dapr_\w+_(count|rpcs|loaded)", 'counter metrics should have "_total" suffix'),
    (r"dapr_\w+_count", 'non-histogram and non-summary metrics should not have "_count" suffix'),
    (r"dapr_\w+_latency_ms", "metric names should not contain abbreviated units"),
    (r"dapr_runtime_acl_\w+_total", "label names should be written in 'snake_case' not 'camelCase'"),
)


def complaints(scraped: bytes) -> list[str]:
    """What promtool finds in a scrape, but for names that are Dapr's."""
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=scraped, capture_output=True, timeout=30, check=False
    )
    said = [line for line in (done.stdout + done.stderr).decode().splitlines() if line]
    assert done.returncode in (0, 3), said
    return [line for line in said if not _is_daprs(line)]


def _is_daprs(line: str) -> bool:
    name, _, text = line.partition(" ")
    return any(re.fullmatch(names, name) and text == known for names, known in _EXCEPTED)
