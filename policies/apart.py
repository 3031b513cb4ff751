"""Reads policies in a process of their own, which ends with the answer.

YAML and pydantic cost 12 MB and some 150 ms, and a load holds the interpreter for milliseconds: a sidecar would pay for all of it for
life. So its documents are read and compiled next door, at start while the sidecar itself is still starting, and at each reload.
What crosses the pipe is pickled by us for us: the child is our own interpreter, isolated from the user's paths.
"""

import os
import pickle
import subprocess
import sys

from policies.errors import DocumentError, Fault, UnreadError
from policies.loading import PolicySnapshot, PolicySources, load

TIMEOUT_S = 30.0
_COMMAND = (sys.executable, "-I", "-m", "policies.apart")


class Loading:
    """A load under way in a child. Finish it once."""

    def __init__(self, sources: PolicySources, generation: int = 1) -> None:
        self._has_files = bool(sources.config_paths or sources.resources_paths)
        self.sources = sources
        self._generation = generation
        self._child: subprocess.Popen[bytes] | None = None
        if self._has_files:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), cwd=os.getcwd()
            )
            assert self._child.stdin is not None
            self._child.stdin.write(pickle.dumps((sources, generation)))
            self._child.stdin.flush()

    def finish(self) -> PolicySnapshot:
        """The snapshot. Blocks. Raises DocumentError with every fault, or with one where the child itself failed."""
        if self._child is None:
            return load(self.sources, generation=self._generation)
        try:
            answer, _ = self._child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self._child.kill()
            self._child.communicate()
            raise self._failure(f"was not read within {TIMEOUT_S:g} s") from error
        if self._child.returncode != 0:
            raise self._failure(
                f"could not be read: the process that does so ended with {self._child.returncode}"
            )
        made = pickle.loads(answer)  # noqa: S301 - pickled by our own child
        if isinstance(made, PolicySnapshot):
            return made
        raise DocumentError(made)

    def _failure(self, problem: str) -> UnreadError:
        path = next(iter((*self.sources.config_paths, *self.sources.resources_paths)))
        return UnreadError((Fault(path=path, line=0, field="", problem=problem),))


def load_apart(sources: PolicySources, *, generation: int = 1) -> PolicySnapshot:
    """As `loading.load`, in a process of its own. Blocks; call it from a thread."""
    return Loading(sources, generation).finish()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _main() -> None:
    sources, generation = pickle.load(sys.stdin.buffer)  # noqa: S301 - pickled by our own parent
    try:
        made: object = load(sources, generation=generation)
    except DocumentError as error:
        made = error.faults
    sys.stdout.buffer.write(pickle.dumps(made))


if __name__ == "__main__":
    _main()
