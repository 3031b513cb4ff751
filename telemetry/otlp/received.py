"""A request that the app sent, until it has gone on."""

from msgspec import Struct


class Received(Struct, frozen=True):
    """In protobuf, and how many spans, data points or log records it holds."""

    body: bytes
    items: int


def weigh(received: Received) -> tuple[int, int]:
    """Its items and bytes, for a queue."""
    return received.items, len(received.body)
