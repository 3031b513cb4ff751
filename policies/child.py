"""The process that reads policies: its start, and its inside. Imports next to nothing, so that it can be started first of all."""

import gc
import os
import pickle
import subprocess
import sys

_COMMAND = (sys.executable, "-I", "-m", "policies.child")


class Child:
    """Gets ready to read from the moment it is made. Ask it once, or close it. `niceness`: how much nicer than we it is."""

    def __init__(self, *, niceness: int = 0) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        if niceness:
            ours = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, self._process.pid, ours + niceness)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, question: bytes) -> None:
        """Hand over what to read: pickled `(PolicySources, generation)`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question)
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended, and its exit code says so

    def answer(self, timeout_s: float) -> tuple[int, bytes]:
        """Its exit code and what it made, pickled: a PolicySnapshot or faults. Blocks. Raises: TimeoutError."""
        try:
            made, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            self.close()
            raise TimeoutError from error
        return self._process.returncode, made

    def close(self) -> None:
        """End it unasked."""
        self._process.kill()
        self._process.communicate()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _main() -> None:
    gc.disable()  # a process of one answer
    from policies import assemble as _  # noqa: F401, PLC0415 - what takes long, while the question is still being made
    from policies.errors import DocumentError  # noqa: PLC0415
    from policies.loading import load  # noqa: PLC0415

    try:
        sources, generation = pickle.load(sys.stdin.buffer)  # noqa: S301 - pickled by our own parent
    except EOFError:
        return  # the sidecar ended before it had anything to read
    try:
        made: object = load(sources, generation=generation)
    except DocumentError as error:
        made = error.faults
    sys.stdout.buffer.write(pickle.dumps(made))


if __name__ == "__main__":
    _main()
