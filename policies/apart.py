"""Reads policies in a process of their own, which ends with the answer.

YAML and schemas cost memory and time to import, and a load holds the interpreter for milliseconds: a sidecar would pay for all of it for
life. So its documents are read and compiled next door, at start while the sidecar itself is still starting, and at each reload.
What crosses the pipe is pickled by us for us: the child is our own interpreter, isolated from the user's paths.
"""

import pickle

from policies.child import Child
from policies.errors import DocumentError, Fault, UnreadError
from policies.loading import PolicySnapshot, PolicySources, load

TIMEOUT_S = 30.0
_RELOAD_NICENESS = 10  # calls go before: one that meets a reader of its own rank waits 3 to 5 ms for a core


class Loading:
    """A load under way in a child, in `child` if one was started before there were `sources`. Finish it once."""

    def __init__(
        self, sources: PolicySources, generation: int = 1, *, child: Child | None = None, niceness: int = 0
    ) -> None:
        self.sources = sources
        self._generation = generation
        self._child: Child | None = None
        if sources.config_paths or sources.resources_paths:
            self._child = child or Child(niceness=niceness)
            self._child.ask(pickle.dumps((sources, generation)))
        elif child is not None:
            child.close()

    def finish(self) -> PolicySnapshot:
        """The snapshot. Blocks. Raises DocumentError with every fault, or with one where the child itself failed."""
        if self._child is None:
            return load(self.sources, generation=self._generation)
        try:
            code, answer = self._child.answer(TIMEOUT_S)
        except TimeoutError as error:
            raise self._failure(f"was not read within {TIMEOUT_S:g} s") from error
        if code != 0:
            raise self._failure(f"could not be read: the process that does so ended with {code}")
        made = pickle.loads(answer)  # noqa: S301 - pickled by our own child
        if isinstance(made, PolicySnapshot):
            return made
        raise DocumentError(made)

    def _failure(self, problem: str) -> UnreadError:
        path = next(iter((*self.sources.config_paths, *self.sources.resources_paths)))
        return UnreadError((Fault(path=path, line=0, field="", problem=problem),))


def load_apart(sources: PolicySources, *, generation: int = 1) -> PolicySnapshot:
    """As `loading.load`, in a process of its own that lets calls go before. Blocks; call it from a thread."""
    return Loading(sources, generation, niceness=_RELOAD_NICENESS).finish()
