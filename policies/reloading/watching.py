"""The replacement of the snapshot in force when a policy file changes."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from policies.errors import DocumentError, UnreadError
from policies.reloading.loading import Fingerprint, PolicySnapshot, PolicySources, fingerprint_of, load

POLL_S = 0.1  # a change is seen within two of these, and read by another process in half a second
UNREAD_POLLS = 20  # pause before documents that could not be read at all are retried


class Read(Protocol):
    """Makes a snapshot of sources, as `load` does."""

    def __call__(self, sources: PolicySources, *, generation: int = 1) -> PolicySnapshot:
        """Raises: DocumentError."""


async def watch(
    sources: PolicySources,
    current: PolicySnapshot,
    on_new: Callable[[PolicySnapshot], None],
    on_bad: Callable[[DocumentError], None],
    *,
    read: Read = load,
    rest: Callable[[], None] | None = None,
    poll_s: float = POLL_S,
    asked: asyncio.Event | None = None,
) -> None:
    """Call `on_new` with each new snapshot, and `on_bad` once for each state of the files that can't be used.

    After `on_bad` the old snapshot stays in force; when the files are good again `on_new` is called even if they say
    the same as before. A change counts once the files have stood still for one poll, so that half a file isn't read.
    `read` is how a snapshot is made; what it could not read at all is retried. `rest`, as blocking as `read` and
    never beside it, is called at each poll. `asked` is an order to read now, whatever the files look like, and to tell what came of it;
    it is cleared; where they mean the same as before, `on_new` gets them under the
    generation in force. Runs until cancelled.
    """
    asked = asked or asyncio.Event()
    handled = previous = current.fingerprint
    is_bad = False
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(poll_s):
                await asked.wait()
        is_asked = asked.is_set()
        asked.clear()
        seen = await asyncio.to_thread(_look, sources, rest)
        is_settled, previous = seen == previous, seen
        if not is_asked and (not is_settled or seen == handled):
            continue
        handled = seen
        try:
            fresh = await asyncio.to_thread(read, sources, generation=current.generation + 1)
        except DocumentError as error:
            is_bad = True
            on_bad(error)
            if isinstance(error, UnreadError):  # a busy machine, say: the files may be good
                handled = current.fingerprint
                await asyncio.sleep(poll_s * UNREAD_POLLS)
            continue
        handled = fresh.fingerprint
        known = replace(fresh, generation=current.generation)
        is_same = replace(known, fingerprint=current.fingerprint, texts=current.texts) == current
        if is_bad or is_asked or not is_same:
            current = known if is_same and not is_bad else fresh
            is_bad = False
            on_new(current)


def _look(sources: PolicySources, rest: Callable[[], None] | None) -> Fingerprint:
    if rest is not None:
        rest()
    return fingerprint_of(sources)
