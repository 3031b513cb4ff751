"""The process that reads policies: how it is started, and what it runs. Imports next to nothing, so that it can be started first."""

import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import time

_COMMAND = (sys.executable, "-I", "-m", "policies.reloading.reader_worker")
_LENGTH_BYTES = 8  # before each answer


class ReaderWorker:
    """Gets ready to read from the moment it is made, and answers until it is closed. `niceness`: how much nicer than we it is."""

    def __init__(self, *, niceness: int = 0) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=_environment()
        )
        if niceness:
            ours = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, self._process.pid, ours + niceness)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Nobody would answer."""
        return self._process.poll() is not None

    def ask(self, question: bytes) -> None:
        """Hand over what to read: pickled `(PolicySources, generation)`."""
        assert self._process.stdin is not None
        rest = memoryview(question)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except BrokenPipeError:
            return  # it has ended, and `answer` says so

    def answer(self, timeout_s: float) -> bytes:
        """What it made, pickled: a PolicySnapshot or faults. Blocks. Raises: TimeoutError; ChildProcessError where it has ended."""
        deadline = time.monotonic() + timeout_s
        return self._read(int.from_bytes(self._read(_LENGTH_BYTES, deadline)), deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        made = bytearray()
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while len(made) < size:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            piece = self._process.stdout.read(size - len(made))
            if not piece:
                raise ChildProcessError(f"the reader process ended with {self._process.wait()}")
            made += piece
        return bytes(made)

    def kill(self) -> None:
        """End it; whoever waits for an answer is told. Close it as well."""
        self._process.kill()

    def close(self) -> None:
        """End it, and let go of its pipes."""
        self._process.kill()
        self._process.communicate()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _main() -> None:
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sidecar, which ends us
    from policies.errors import DocumentError  # noqa: PLC0415
    from policies.reading import assemble as _  # noqa: F401, PLC0415 - what takes long, while the question is still being made
    from policies.reloading.loading import load  # noqa: PLC0415

    gc.freeze()
    while True:
        try:
            sources, generation = pickle.load(sys.stdin.buffer)  # noqa: S301 - pickled by our own parent
        except EOFError:
            return  # the sidecar has ended
        try:
            made: object = load(sources, generation=generation)
        except DocumentError as error:
            made = error.faults
        answer = pickle.dumps(made)
        sys.stdout.buffer.write(len(answer).to_bytes(_LENGTH_BYTES) + answer)
        sys.stdout.buffer.flush()
        del made, answer
        gc.collect()


if __name__ == "__main__":
    _main()
