"""Probes run side by side, and none holds up the others."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.cli.checks.findings import CHECKS, GROUPS, Finding, Probe, blocking, ok, run_all


async def test_probe_that_hangs_or_breaks_is_a_failure_and_the_others_stand() -> None:
    async def hang() -> Sequence[Finding]:
        await asyncio.Event().wait()
        return ()

    async def refuse() -> Sequence[Finding]:
        raise ConnectionRefusedError(111, "Connection refused")

    async def well() -> Sequence[Finding]:
        return (ok("disk", "room"),)

    found = await run_all(
        (
            Probe(id="sentry", what="the sentry", run=hang, within_s=0.01),
            Probe(id="collector", what="c:1", run=refuse),
            Probe(id="disk", what="disk", run=well),
        )
    )
    assert [(each.id, each.state, each.text) for each in found] == [
        ("sentry", "failed", "the sentry: no result within 0.01 s"),
        ("collector", "failed", "c:1: Connection refused"),
        ("disk", "ok", "room"),
    ]
    assert found[0].hint == CHECKS["sentry"].hint


async def test_blocking_work_that_does_not_end_is_left_behind() -> None:
    stuck = threading.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(blocking(stuck.wait)())
            await asyncio.sleep(0)
            waiting.cancel()
        assert waiting.cancelled()
    finally:
        stuck.set()


async def test_blocking_work_returns_and_raises() -> None:
    assert await blocking(lambda: 7)() == 7
    with pytest.raises(FileNotFoundError):
        await blocking(Path("/nowhere/at/all").read_bytes)()


def test_each_check_is_in_a_group_that_is_listed() -> None:
    assert {check.group for check in CHECKS.values()} == set(GROUPS)
