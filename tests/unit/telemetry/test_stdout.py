"""Spans as log lines."""

from telemetry.stdout import SCOPE, StdoutExporter, describe
from tests.unit.telemetry.building import BEGAN, SAMPLED, KeptLines, a_span


def test_describe_has_the_known_form() -> None:
    span = a_span(context=SAMPLED._replace(parent_id=0xB2), events=((BEGAN, "retry attempt=2"),))
    assert describe(span) == (
        "[CallLocal/checkout/Orders] Trace: 4bf92f3577b34da6a3ce929d0e0e4736"
        " Span: 00000000000000b2/00000000000000a1"
        " Time: [2023-11-14T22:13:20.000000000Z ->  2023-11-14T22:13:20.002000000Z]"
        " Annotations: [retry attempt=2]"
    )


async def test_export_is_one_info_line_per_span() -> None:
    kept = KeptLines()
    exporter = StdoutExporter(kept.get)
    await exporter.export([a_span(), a_span()])
    await exporter.close()
    assert kept.lines == [{"event": describe(a_span()), "level": "INFO", "scope": SCOPE}] * 2
