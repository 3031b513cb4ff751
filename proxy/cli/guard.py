"""Ends what `postern run` started if that command itself is killed. Runs without the rest of postern, to stay small.

Standard input is a pipe from the command: `+N` and `-N` lines name process groups that began and ended. The kernel closes the pipe
however the command dies; every group still named is then told to end, and killed if it does not in time.
"""

import contextlib
import os
import signal
import sys
import time

TERM_S = 5.0  # for apps; a sidecar that finishes calls is in a group of its own and gets as long
_PAUSE_S = 0.05


def main() -> int:
    """Watch until the pipe closes, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    rest = b""
    while chunk := os.read(0, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            note(groups, line)
    end(groups)
    return 0


def note(groups: set[int], line: bytes) -> None:
    """One line from the command; anything else than `+N` or `-N` is ignored."""
    sign, number = line[:1], line[1:]
    if not number.isdigit() or int(number) <= 1:
        return
    if sign == b"+":
        groups.add(int(number))
    elif sign == b"-":
        groups.discard(int(number))


def end(groups: set[int]) -> None:
    """TERM, and KILL for those that stay."""
    left = {group for group in groups if _send(group, signal.SIGTERM)}
    until = time.monotonic() + TERM_S
    while left and time.monotonic() < until:
        time.sleep(_PAUSE_S)
        left = {group for group in left if _send(group, 0)}
    for group in left:
        _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    """Whether the group is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
