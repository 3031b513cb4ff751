"""h2spec, the public suite of HTTP/2 servers, in strict mode against the listener of an app. `make stock` builds it where Go is."""

import asyncio
import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.conformance.apps import http_app
from tests.conformance.harness import leading
from tests.stock.programs import BUILT

H2SPEC: Final = BUILT / "h2spec"
# What it has wrong of us. The listener speaks HTTP/1.1 as well, and answers a preface that is none with a 400 before it closes; and the
# frame that it takes for too large is within the MAX_FRAME_SIZE that the native engine announces (RFC 9113 §4.2).
EXCEPT: Final = {"Sends invalid connection preface"}
EXCEPT_NATIVE: Final = {"Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE"}


# How it tells of a connection that was closed, as it should be, before all that it sent was read.
CLOSED: Final = "connection reset by peer"


def _is_failed(case: ET.Element) -> bool:
    found = case.find("failure")
    found = found if found is not None else case.find("error")
    return found is not None and CLOSED not in "".join(found.itertext())


@pytest.mark.skipif(not H2SPEC.exists(), reason="h2spec is not built: install Go, then make stock")
async def test_h2spec_finds_nothing(engine: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    async with http_app() as app, leading(engine, "one", app) as way:
        run = await asyncio.create_subprocess_exec(
            *(H2SPEC, "--strict", "--host", "127.0.0.1", "--port", str(way.port), "--path", "/echo"),
            *("--timeout", "5", "--junit-report", str(report)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await asyncio.wait_for(run.wait(), 25)
        finally:
            if run.returncode is None:
                run.kill()
    text = re.sub(
        rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", b"?", report.read_bytes()
    )  # it quotes bytes that no XML holds
    cases = ET.fromstring(text).findall(".//testcase")
    failed = {case.get("classname") for case in cases if _is_failed(case)}
    assert len(cases) > 140
    assert failed <= EXCEPT | (EXCEPT_NATIVE if engine == "native" else set())
