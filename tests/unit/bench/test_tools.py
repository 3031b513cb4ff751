"""The bench takes no engine that was built for speed of building."""

from pathlib import Path

import pytest

from tests.bench.errors import SlowEngineError
from tests.bench.tools import require_release_engine


def test_engine_of_native_dev_is_refused_and_others_are_measured(tmp_path: Path) -> None:
    engine, dev = tmp_path / "_native.abi3.so", tmp_path / "lib_native.so"
    require_release_engine(engine, dev)
    dev.write_bytes(b"quick")
    require_release_engine(engine, dev)
    engine.write_bytes(b"release")
    require_release_engine(engine, dev)
    engine.write_bytes(b"quick")
    with pytest.raises(SlowEngineError, match="native-dev"):
        require_release_engine(engine, dev)
