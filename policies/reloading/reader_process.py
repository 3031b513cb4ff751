"""Reads policies in a process of their own.

YAML and schemas cost memory and time to import, and a load holds the interpreter for milliseconds: a sidecar would pay for all of it for
as long as it runs. So documents are read and compiled in a child, at startup while the sidecar is still starting, and at each reload.
What crosses the pipe is pickled by our own code for our own code: the child is our own interpreter, isolated from the user's paths.
"""

import pickle
import threading
import time

from policies.errors import DocumentError, Fault, UnreadError
from policies.reloading.loading import PolicySnapshot, PolicySources, load
from policies.reloading.reader_worker import ReaderWorker

TIMEOUT_S = 30.0
_RELOAD_NICENESS = 10  # calls go before: one that meets a reader of its own rank waits 3 to 5 ms for a core
_KEPT_S = 5.0  # after a reload: a reader takes 140 ms of a core to start and 1 to be asked again, and edits come in rows


class Loading:
    """The first load, under way in a child; in `child` if one was started before there were `sources`. Finish it once."""

    def __init__(self, sources: PolicySources, *, child: ReaderWorker | None = None) -> None:
        self.sources = sources
        self._child: ReaderWorker | None = None
        if sources.has_files:
            self._child = child or ReaderWorker()
            _ask(self._child, sources, generation=1)
        elif child is not None:
            child.close()

    def finish(self) -> PolicySnapshot:
        """The snapshot. Blocks. Raises DocumentError with every fault, or with one where the child itself failed."""
        if self._child is None:
            return load(self.sources)
        try:
            return _answer(self._child, self.sources)
        finally:
            self._child.close()


class ReaderProcess:
    """Loads as `loading.load`, in a child that lets calls go before and is kept for `kept_s` after each load.

    Call it and `rest` from threads, one at a time; `close` from anywhere.
    """

    def __init__(self, *, kept_s: float = _KEPT_S) -> None:
        self._kept_s = kept_s
        self._child: ReaderWorker | None = None
        self._last_use = 0.0
        self._busy = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The child, while there is one."""
        return self._child.pid if self._child is not None else None

    def __call__(self, sources: PolicySources, *, generation: int = 1) -> PolicySnapshot:
        """The snapshot. Blocks. Raises as `Loading.finish`."""
        if not sources.has_files:
            return load(sources, generation=generation)
        with self._busy:
            if self._child is not None and self._child.has_ended:
                self._end()
            if self._child is None:
                self._child = ReaderWorker(niceness=_RELOAD_NICENESS)
            _ask(self._child, sources, generation)
            try:
                return _answer(self._child, sources)
            except UnreadError:
                self._end()
                raise
            finally:
                self._last_use = time.monotonic()

    def rest(self) -> None:
        """There is nothing to read at the moment: ends the child in time. Blocks for as long as that takes."""
        with self._busy:
            if time.monotonic() - self._last_use > self._kept_s:
                self._end()

    def close(self) -> None:
        """End the child; a load under way is unread."""
        if (child := self._child) is not None:
            child.kill()
        with self._busy:
            self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


def _ask(child: ReaderWorker, sources: PolicySources, generation: int) -> None:
    child.ask(pickle.dumps((sources, generation)))


def _answer(child: ReaderWorker, sources: PolicySources) -> PolicySnapshot:
    try:
        made = pickle.loads(child.answer(TIMEOUT_S))  # noqa: S301 - pickled by our own child
    except TimeoutError as error:
        raise _unread(sources, f"was not read within {TIMEOUT_S:g} s") from error
    except ChildProcessError as error:
        raise _unread(sources, f"could not be read: {error}") from error
    if isinstance(made, PolicySnapshot):
        return made
    raise DocumentError(made)


def _unread(sources: PolicySources, problem: str) -> UnreadError:
    path = next(iter((*sources.config_paths, *sources.resources_paths)))
    return UnreadError((Fault(path=path, line=0, field="", problem=problem),))
