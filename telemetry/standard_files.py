"""Standard input, output and error, which whoever starts a process may have closed: the next file or socket took such a number, and had
read or written to it what is meant for those.
"""

import os
import sys
from typing import IO, Any


def hold_standard_files() -> None:
    """Have the null device stand for those that are closed. To be called before anything is opened; again is harmless."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115 - for the process's life


def finish_output(command: str, code: int) -> int:
    """The exit code of a command that would end with `code`: 1 where what it wrote can't be written, of which people are told."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # as in `postern status | head`
        discard(sys.stdout)
    except OSError as error:
        discard(sys.stdout)
        sys.stderr.write(f"{command}: its output can't be written: {error.strerror}\n")
        return code or 1
    return code


def discard(stream: IO[Any]) -> None:
    """Have the null device take the rest: Python flushes again at its end, and would fail again. Raises: OSError, ValueError."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
