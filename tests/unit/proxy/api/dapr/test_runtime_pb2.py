"""The generated messages are those of the .proto files beside them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]


@pytest.mark.parametrize("name", ["proxy/api/dapr/common", "proxy/api/dapr/runtime", "proxy/api/daprd/internals", "sentry/ca", "telemetry/otlp/messages", "proxy/control/authorizing/messages"])
def test_generated_messages_are_those_of_the_proto(name: str, tmp_path: Path) -> None:
    out = (f"--python_out={tmp_path}", f"--pyi_out={tmp_path}")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *out, f"{name}.proto"]
    subprocess.run(command, check=True, cwd=ROOT, timeout=30)
    made = (tmp_path / f"{name}_pb2.py").read_text()
    assert made == (ROOT / f"{name}_pb2.py").read_text(), "see the README beside it for how to generate it"
    stub = "# mypy: ignore-errors\n" + (tmp_path / f"{name}_pb2.pyi").read_text()
    assert stub == (ROOT / f"{name}_pb2.pyi").read_text()
