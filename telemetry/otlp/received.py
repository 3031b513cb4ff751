"""A request that the app sent, until it has gone on."""

from msgspec import Struct


class Received(Struct, frozen=True):
    """In protobuf, and how many spans it holds."""

    body: bytes
    spans: int


def weigh(received: Received) -> tuple[int, int]:
    """Its spans and bytes, for a queue."""
    return received.spans, len(received.body)
