"""Keeps the memory of a process that holds private keys out of core dumps and from other processes of its user."""

import os
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid_dumps() -> None:
    """For the rest of this process's life: no core dump, and on Linux neither ptrace nor /proc/<pid>/mem or environ for the same user.

    Children inherit the core limit of 0; Linux gives the rest back to them at exec. Source: prctl(2), PR_SET_DUMPABLE.
    Raises: OSError where the system refuses.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ValueError as error:  # how `resource` reports EINVAL and EPERM
        raise OSError(f"setrlimit(RLIMIT_CORE): {error}") from error
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - 2 ms, for those alone that hold keys

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except AttributeError as error:
        raise OSError("the C library has no prctl") from error
    if prctl(_PR_SET_DUMPABLE, *(ctypes.c_ulong(0),) * 4):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_DUMPABLE): {os.strerror(number)}")
