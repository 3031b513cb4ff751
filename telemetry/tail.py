"""A user's own rule of which calls that are not sampled keep their span: a callable, asked on a thread of its own.

No call waits for it. What it is asked is bounded; what it can't take is dropped and counted.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module

from telemetry.errors import TailCallableError
from telemetry.logs import Logger
from telemetry.metrics import Meters
from telemetry.report import Call

WAITING = 1_024  # calls that it has not answered; further ones are dropped
_AT_ONCE = 64  # answers handed back together

Wants = Callable[[Mapping[str, object]], object]
"""Whether a call's span is to be kept, by what `facts_of` tells of it: any true value."""


def load(reference: str) -> Wants:
    """What `package.module:function` names. Runs the module's code. Raises: TailCallableError."""
    module_name, _, path = reference.partition(":")
    try:
        found: object = import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except ModuleNotFoundError as error:
        problem = f"ModuleNotFoundError: {error}; postern doesn't see PYTHONPATH: install the package beside it (`pipx inject postern …`)"
        raise TailCallableError(reference, problem) from error
    except Exception as error:
        raise TailCallableError(reference, f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise TailCallableError(reference, "it is not callable")
    return found


def facts_of(call: Call) -> dict[str, object]:
    """What the callable is told. Times are in milliseconds; `status` is HTTP's, 0 for none; `grpc_code` a number or None; `cause`: why a
    proxy ended the call, or None; `path` is without the query, and empty where paths are hidden.
    """
    return {
        "trace_id": f"{call.context.trace_id:032x}",
        "direction": call.direction,
        "protocol": call.protocol,
        "src": call.src,
        "src_namespace": call.src_namespace,
        "dst": call.dst,
        "dst_namespace": call.dst_namespace,
        "peer_id": call.peer_id,
        "verb": call.verb,
        "path": call.path,
        "status": call.status,
        "grpc_code": call.grpc_code,
        "cause": call.cause,
        "duration_ms": (call.ended_ns - call.started_ns) / 1e6,
        "head_ms": (call.head_ns - call.started_ns) / 1e6 if call.head_ns else None,
        "bytes_in": call.bytes_in,
        "bytes_out": call.bytes_out,
        "attempts": max(1, len(call.attempts)),
    }


class TailHook:
    """Asks `wants` about calls, and has `keep` those that it wants. Used on the loop's thread; `wants` runs on one of its own, a daemon, so
    that code that never returns ends with the process.

    Mutable state: how many calls wait, and whether a failure was logged.
    """

    def __init__(
        self, reference: str, wants: Wants, keep: Callable[[Call], None], meters: Meters, log: Logger
    ) -> None:
        self.reference = reference
        self._wants = wants
        self._keep = keep
        self._lost = meters.exports.tail_lost
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._waiting = 0
        self._is_logged = False

    def offer(self, call: Call) -> None:
        """Have the callable asked about a call."""
        if self._waiting >= WAITING:
            self._lost.add("queue-full")
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, args=(self._loop,), name="tail-callable", daemon=True).start()
        self._waiting += 1
        self._calls.put(call)

    def close(self) -> None:
        """Ask it no more, but of what waits."""
        self._calls.put(None)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (first := self._calls.get()) is not None:
            asked: list[Call] = [first]
            wanted: list[Call] = []
            failures: list[str] = []
            is_over = False
            while len(asked) < _AT_ONCE and not is_over and not self._calls.empty():
                more = self._calls.get()
                is_over = more is None
                if more is not None:
                    asked.append(more)
            for call in asked:
                try:
                    if self._wants(facts_of(call)):
                        wanted.append(call)
                except Exception as error:  # noqa: BLE001 - foreign code must not end the thread
                    failures.append(f"{type(error).__name__}: {error}")
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(self._judged, len(asked), wanted, failures)
            if is_over:
                return

    def _judged(self, count: int, wanted: list[Call], failures: list[str]) -> None:
        self._waiting -= count
        for call in wanted:
            self._keep(call)
        if failures:
            self._lost.add("raised", amount=len(failures))
            if not self._is_logged:
                self._is_logged = True
                self._log.warning(
                    "the tail callable failed; later failures are counted alone",
                    callable=self.reference,
                    reason=failures[0],
                )
