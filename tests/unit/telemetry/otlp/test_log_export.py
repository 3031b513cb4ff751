"""Lines on their way to a collector of logs: bounded, counted, from any thread."""

import asyncio
import logging
from collections.abc import Sequence

from telemetry.exporting import ExportLimits
from telemetry.logs import get_logger
from telemetry.metrics import Meters
from telemetry.otlp.log_export import LogExport
from telemetry.otlp.log_items import LogItem, Told


class Kept:
    """An exporter that keeps what it gets."""

    name = "otlp-logs"

    def __init__(self) -> None:
        self.items: list[LogItem] = []

    async def export(self, items: Sequence[LogItem]) -> None:
        self.items += items

    async def close(self) -> None:
        pass


def counted(meters: Meters) -> dict[str, float]:
    meters.refresh()
    return {labels[0]: slot.value for labels, slot in meters.exports.log_records.slots.items()}


async def test_log_is_followed_from_any_thread_until_closed() -> None:
    kept, meters = Kept(), Meters("cart")
    export = LogExport(kept, meters, ExportLimits())
    export.follow_log()
    try:
        await asyncio.to_thread(get_logger("postern.x").warning, "of a thread", a=1)
        for _ in range(30):
            get_logger("postern.x").error("again and again")
        await asyncio.sleep(0)
    finally:
        await export.close()
    get_logger("postern.x").warning("too late")
    told = [item.message for item in kept.items if isinstance(item, Told) and item.scope == "postern.x"]
    assert told == ["of a thread", *["again and again"] * 10]
    assert counted(meters)["exported"] == 11
    assert not [
        each for each in logging.getLogger().handlers if type(each).__module__ == LogExport.__module__
    ]


async def test_lines_without_a_collector_and_beyond_the_queue_are_counted() -> None:
    meters = Meters("cart")
    export = LogExport(None, meters, ExportLimits(queue_bytes=10))
    export.put(b"a\nb\n")
    assert counted(meters) == {"no-collector": 2}
    export.replace(Kept())
    for _ in range(4):
        export.put(b"abc\ndef\n")
    assert counted(meters) == {"no-collector": 2, "exported": 0, "queue-full": 6}
    export.lose(3, "why")
    assert meters.reports_lost.slot("line").value == 3
    await export.close()
    assert counted(meters)["exported"] == 2
