"""How long a load goes on before and after a fault, and what callers may notice of it."""

from typing import Final

from tests.chaos.load import Load, percentile
from tests.integration.mesh.standing import eventually

PER_S: Final = 60.0
BEFORE_S: Final = 1.5
RECOVERY_S: Final = 2.0  # until then calls may be slow
AFTER_S: Final = 2.0


async def passed(load: Load, seconds: float) -> None:
    """Until the load has gone on for so long."""
    end = load.now + seconds
    await eventually(lambda: _is_past(load, end), within_s=seconds + 10.0)


async def _is_past(load: Load, end: float) -> bool:
    return load.now >= end


def judge(load: Load, hurt_at: float, end: float) -> None:
    """No call failed, and those that began RECOVERY_S after the fault were about as fast as those before it."""
    assert load.failures() == []
    before, after = load.between(0.0, hurt_at), load.between(hurt_at + RECOVERY_S, end)
    usual, then = percentile(before, 0.99), percentile(after, 0.99)
    assert then <= max(5 * usual, 0.1), [
        (round(call.began - hurt_at, 2), round(call.took, 2), call.text)
        for call in after
        if call.took > usual
    ]
