"""Timing Python's garbage collections."""

import gc

from telemetry.garbage import timed_collections
from telemetry.metrics import Meters


def test_each_collection_is_timed_until_the_end() -> None:
    pauses = Meters("cart").gc_pauses.slot()
    with timed_collections(pauses):
        gc.collect()
    counted = sum(pauses.counts)
    assert counted >= 1
    assert pauses.sum > 0
    gc.collect()
    assert sum(pauses.counts) == counted
