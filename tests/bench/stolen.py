"""Time that the machine's own host took from it: what a virtual machine can't help, and no program is to blame for."""

import os
import time
from pathlib import Path
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_STEAL: Final = 8  # the field of the first line, after its name (proc_stat(5))


class Stolen:
    """Counts from the moment it is made."""

    def __init__(self) -> None:
        self._from = time.monotonic(), _stolen_s()

    def share(self) -> float:
        """Of all cores' time since then, 0 to 1."""
        began_at, before_s = self._from
        whole_s = (time.monotonic() - began_at) * (os.cpu_count() or 1)
        return (_stolen_s() - before_s) / whole_s if whole_s else 0.0


def _stolen_s() -> float:
    whole = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    return int(whole.split()[_STEAL]) * _TICK_S
