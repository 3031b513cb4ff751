"""Which engine carries the bytes: the native one where this installation has it, else the portable one.

Only the engine in use is imported: each costs start-up time.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from proxy.contract.engine import Engine, Limits, Observer, Tracing
from proxy.engine.native.seam import StaleEngineError, check
from proxy.errors import ConfigError
from proxy.settings.values import EngineChoice
from proxy.settings.version import has_native

BUILD: Final = (
    "`pip install` builds it where cargo (https://rustup.rs) and a C compiler are, and with POSTERN_REQUIRE_NATIVE=1 "
    "says why it can't"
)
Make = Callable[[Limits, Observer, Tracing, Callable[[str], str]], Engine]


def loop_factory(wish: EngineChoice) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the loop that an engine goes well with: uvloop carries calls at half the cost of asyncio's own; a native engine's
    calls are carried elsewhere, and asyncio is loaded already.
    """
    if wish == "native" or (wish == "auto" and has_native()):
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415 - see above
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class Chosen(Struct, frozen=True):
    """The engine to run, and why it is not the preferred one; "" when it is. writes_lines: of the access log, by itself."""

    make: Make
    notice: str = ""
    writes_lines: bool = False


def choose(wish: EngineChoice, *, threads: int = 1, keep_decisions: bool = True) -> Chosen:
    """Load the engine that is wished for. Raises ConfigError where it is missing.

    keep_decisions: False, and a decider is asked about every call.
    """
    if wish == "portable":
        return _portable(threads, keep_decisions)
    try:
        return Chosen(_native(threads, keep_decisions), writes_lines=True)
    except ImportError as error:
        reason = f"{_reason(error)}; {BUILD}"
        if isinstance(error, StaleEngineError):
            reason = str(error)
        if wish == "native":
            raise ConfigError((f"--engine native: {reason}; `auto` does without",)) from error
        return _portable(
            threads,
            keep_decisions,
            f"the portable engine is in use; the native one is faster, but {reason}",
        )


def _reason(error: ImportError) -> str:
    return f"it does not load: {error}" if has_native() else "this installation has none"


def _native(threads: int, keep_decisions: bool) -> Make:
    check()
    from proxy.engine.native.adapter import NativeEngine  # noqa: PLC0415 - see above

    return partial(NativeEngine, threads=threads, keep_decisions=keep_decisions)


def _portable(threads: int, keep_decisions: bool, *notices: str) -> Chosen:
    from proxy.engine.portable.engine import PortableEngine  # noqa: PLC0415 - see above

    if threads > 1:
        notices = (*notices, f"--threads {threads} has no effect: the portable engine runs on one thread")
    return Chosen(partial(PortableEngine, keep_decisions=keep_decisions), "; ".join(notices))
