"""Times Python's garbage collections: while one runs, nothing else does on its thread."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from telemetry.series import Distribution


@contextmanager
def timed_collections(pauses: Distribution) -> Iterator[None]:
    """Counts how long each collection takes, in seconds, in `pauses`."""
    begun_at = 0.0

    def heard(phase: str, _info: dict[str, Any]) -> None:
        nonlocal begun_at
        if phase == "start":
            begun_at = time.perf_counter()
        else:
            pauses.observe(time.perf_counter() - begun_at)

    gc.callbacks.append(heard)
    try:
        yield
    finally:
        gc.callbacks.remove(heard)
