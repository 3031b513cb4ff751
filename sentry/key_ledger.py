"""Remembers which identity a key was certified for: a key that turns up under a second identity is refused."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sentry.errors import AttestationError
from sentry.spiffe import SpiffeId

_MEMORY_S: Final = 86400.0
_MAX_KEYS: Final = 100_000


class KeyLedger:
    """State (`_owners`: key hash -> identity, until): a day long, the oldest forgotten beyond the bound."""

    def __init__(self, clock: Callable[[], float], *, limit: int = _MAX_KEYS) -> None:
        """`clock` is monotonic."""
        self._clock = clock
        self._limit = limit
        self._owners: OrderedDict[str, tuple[SpiffeId, float]] = OrderedDict()

    def claim(self, key_hash: str, spiffe_id: SpiffeId) -> None:
        """Note that `spiffe_id` uses the key. Raises AttestationError if another identity did within a day."""
        now = self._clock()
        owner, until = self._owners.pop(key_hash, (spiffe_id, now))
        is_foreign = owner != spiffe_id and until > now
        self._owners[key_hash] = (owner, until) if is_foreign else (spiffe_id, now + _MEMORY_S)
        if len(self._owners) > self._limit:
            self._owners.popitem(last=False)
        if is_foreign:
            raise AttestationError("key-reuse", "the key was certified for another identity before")
