"""Waits for child processes, under a deadline."""

import subprocess
import time
from typing import Any

STEP_S = 0.25


class Deadline:
    """A moment by which something must have happened."""

    def __init__(self, length_s: float) -> None:
        self._at = time.monotonic() + length_s

    def is_past(self) -> bool:
        """Whether it is too late."""
        return time.monotonic() >= self._at

    def pause(self, process: "subprocess.Popen[bytes]") -> bool:
        """Let a moment pass, before asking again; False at once when the process ends meanwhile."""
        try:
            process.wait(STEP_S)
        except subprocess.TimeoutExpired:
            return True
        return False


def end(process: "subprocess.Popen[Any]", grace_s: float) -> bool:
    """Wait for a process that was asked to end; kill it after `grace_s`. Gives whether it ended by itself."""
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True
