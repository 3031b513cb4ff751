"""Dapr's own integration tests (1.14.4), with our sidecar and our sentry in the place of its own: those of service invocation.

Left out are cases of other building blocks, of Kubernetes, and of the version's own number, and two that want what we decided otherwise:
ports that stay closed until sentry has answered (`healthz/daprd`), and SVIDs without a keyUsage (`mtls/renew`). `make dapr-suite` builds
the suite.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engines import ENGINES
from tests.support.processes import REPOSITORY

_SUITE = REPOSITORY / ".cache" / "stock" / "daprd" / "suite"
_CASES = (
    *(f"hotreload/selfhosted/middleware/http/{side}/routeralias" for side in ("app", "server")),
    *(f"metrics/http/distributionbuckets/{name}" for name in ("high", "low")),
    *(f"metrics/http/excludeverbs/{name}" for name in ("defaultExcludeVerbs", "excludeVerbs")),
    *(f"metrics/http/pathmatching/{name}Cardinality" for name in ("default", "high", "low")),
    *(f"hotreload/selfhosted/middleware/http/{side}/uppercase" for side in ("app", "server")),
    "httpserver/httpServer",
    *(f"middleware/http/{side}{name}" for side in ("", "app/") for name in ("missing", "order", "uppercase")),
    "multipleconfigs/multipleconfigs",
    *(f"resiliency/apps/default{name}" for name in ("retry", "timeout")),
    "resources/versionv2",
    *(
        f"serviceinvocation/{wire}/appapitoken/{name}"
        for wire in ("grpc", "http")
        for name in (
            *("remotebothtokens", "remotereceiverhastoken", "remotereceivernotoken"),
            *("selfnotoken", "selfwithtoken"),
        )
    ),
    *(f"serviceinvocation/grpc/{name}" for name in ("basic", "contentlength", "fuzzgrpc", "slowappstartup")),
    *(f"serviceinvocation/http/{name}" for name in ("basic", "fuzzhttp", "httpendpoints")),
    *(f"shutdown/graceful/{name}" for name in ("graceful", "timeout")),
    "tracing/serviceinvocation/invoke",
)
CASES = (
    *(f"daprd/{case}" for case in _CASES),
    *("healthz/app", "healthz/sentry", "ports/daprd", "ports/sentry"),
    "sentry/metrics/expiry",
)
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not _SUITE.exists(), reason="Dapr's suite is not built: make dapr-suite"),
]


def script(path: Path, *words: str) -> str:
    """A program of one name, as the suite starts its processes without an environment of its own."""
    path.write_text(f'#!/bin/sh\nexec env {" ".join(words)} "$@"\n', encoding="utf-8")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_case_of_daprs_suite(case: str, engine: str, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    sentry = [str(programs / "postern"), "sentry", "--allow-loose-store", "--insecure-validator"]
    found = {
        "DAPRD": script(tmp_path / "daprd", f"POSTERN_ENGINE={engine}", str(programs / "daprd")),
        "SENTRY": script(tmp_path / "sentry", *sentry),
        **dict.fromkeys(("PLACEMENT", "OPERATOR", "INJECTOR", "SCHEDULER", "HELMTEMPLATE"), "false"),
    }
    env = os.environ | {f"DAPR_INTEGRATION_{name}_PATH": path for name, path in found.items()}
    flags = ["-test.v", "-integration-parallel=false", "-focus", f"^{case}$"]
    done = subprocess.run(
        [str(_SUITE), *flags],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    assert f"--- PASS: Test_Integration/{case}" in done.stdout, done.stdout[-8_000:]
    assert done.returncode == 0, done.stdout[-8_000:]
