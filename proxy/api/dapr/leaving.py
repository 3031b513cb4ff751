"""Streams that the sidecar itself serves, which would hold up its end for as long as their callers keep them open."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

_Request = TypeVar("_Request")


class Leaving:
    """Ends them where they wait. Mutable state: whether the sidecar leaves, and the waits that its leaving ends."""

    def __init__(self) -> None:
        self._has_begun = False
        self._waits: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """The sidecar leaves: what waits ends now, and what will wait at once."""
        self._has_begun = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    async def requests(self, coming: AsyncIterator[_Request]) -> AsyncIterator[_Request]:
        """A stream's requests as they come. Raises TimeoutError once the sidecar leaves.

        Nothing but the wait for a request is broken off: gRPC can't send a status while a response is on its way out.
        """
        while True:
            async with asyncio.timeout(0 if self._has_begun else None) as wait:
                self._waits.add(wait)
                try:
                    request = await anext(coming, None)
                finally:
                    self._waits.remove(wait)
            if request is None:
                return
            yield request
