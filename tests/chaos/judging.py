"""How long a load goes on before and after a fault, and what callers may notice of it."""

from typing import Final

from tests.chaos.load import Load, percentile
from tests.integration.mesh.standing import eventually

PER_S: Final = 60.0
BEFORE_S: Final = 1.5
RECOVERY_S: Final = 2.0  # until then calls may be slow
AFTER_S: Final = 2.0
BUSY_S: Final = 1.0  # what a call may take beside other tests; one that hangs takes up to AFTER_S
QUIET_S: Final = 0.1


async def passed(load: Load, seconds: float) -> None:
    """Until the load has gone on for so long."""
    end = load.now + seconds
    await eventually(lambda: _is_past(load, end), within_s=seconds + 45.0)


async def _is_past(load: Load, end: float) -> bool:
    return load.now >= end


def judge(load: Load, hurt_at: float, end: float, *, limit_s: float = BUSY_S) -> None:
    """No call failed, and those that began RECOVERY_S after the fault were about as fast as those before it, or as `limit_s`."""
    assert load.failures() == []
    before, after = load.between(0.0, hurt_at), load.between(hurt_at + RECOVERY_S, end)
    usual, then = percentile(before, 0.99), percentile(after, 0.99)
    assert then <= max(5 * usual, limit_s), [
        (round(call.began - hurt_at, 2), round(call.took, 2), call.text)
        for call in after
        if call.took > usual
    ]
