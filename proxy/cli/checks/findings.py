"""What a check finds, the table of all checks, and how they run: side by side, each with a deadline of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct

State = Literal["ok", "warning", "failed"]
ResultT = TypeVar("ResultT")

HOST, NETWORK, AUTHORITY = "this host", "network", "authority"
SIDECARS, NAMES, CERTIFICATES = "sidecars", "names", "certificates"
GROUPS: Final = (HOST, NETWORK, AUTHORITY, SIDECARS, NAMES, CERTIFICATES)


class Check(Struct, frozen=True):
    """One kind of check. hint: what to do when it fails, unless the finding knows better."""

    group: str
    about: str
    hint: str = ""


CHECKS: Final[dict[str, Check]] = {
    "python": Check(HOST, "Python is 3.11 or newer", "install postern with a newer Python"),
    "engine": Check(
        HOST,
        "the native engine is installed and loads",
        "install Rust's cargo and a C compiler, then install postern again; the portable engine does the same, slower",
    ),
    "runtime-root": Check(HOST, "the runtime root is this user's alone, and can be written"),
    "socket-path": Check(
        HOST,
        "sockets in the runtime root have names that the system takes (107 bytes)",
        "choose a shorter path with POSTERN_HOME or --runtime-path",
    ),
    "disk": Check(HOST, "there is room for logs and keys", "free some space, or choose another runtime root"),
    "port": Check(
        HOST,
        "the usual ports are free: 3500, 50001, 9090, and 50002 and 8080 of a sentry or daprd",
        "`postern run` takes another one by itself; `postern sidecar` needs it free, or a flag that names another",
    ),
    "clock": Check(
        HOST,
        "the clock agrees with the certificates and has not been turned while sidecars ran",
        "set the clock (timedatectl, chronyc), then restart what does not recover by itself",
    ),
    "multicast": Check(
        NETWORK,
        "a multicast DNS question sent on each interface is heard there",
        "allow UDP 224.0.0.251 port 5353 in firewall, VPN or security software; apps of this host find each other without",
    ),
    "localhost": Check(
        NETWORK, "localhost is this machine", "name 127.0.0.1 and ::1 localhost in /etc/hosts"
    ),
    "collector": Check(
        NETWORK,
        "the trace collector that a Configuration names takes connections",
        "start it, or correct spec.tracing in the Configuration",
    ),
    "sentry": Check(
        AUTHORITY,
        "the sentry of this host answers with a certificate that its trust anchors vouch for",
        "see sentry/sentry.log in the runtime root; a sidecar that starts or renews its certificate starts it again",
    ),
    "authority-files": Check(
        AUTHORITY,
        "keys and certificates of the local authority are whole and this user's alone",
        "restore them from a backup, or correct owner and mode",
    ),
    "trust-anchors": Check(
        AUTHORITY, "the trust anchors are valid", "`postern mtls renew-certificate` makes new ones"
    ),
    "issuer": Check(AUTHORITY, "the issuer's certificate is valid", "`postern mtls renew-certificate`"),
    "sidecar": Check(
        SIDECARS,
        "each sidecar answers and is ready",
        "`postern check APP --proxy` looks closer, `postern logs APP` tells more",
    ),
    "app": Check(SIDECARS, "the app listens on its port, is healthy, and speaks the protocol that was named"),
    "version": Check(
        SIDECARS, "sidecars are of this version", "restart those apps to have the same version everywhere"
    ),
    "same-engine": Check(SIDECARS, "sidecars use the same engine", "set POSTERN_ENGINE for all, or for none"),
    "policy": Check(
        SIDECARS,
        "policies were read without fault",
        "correct the file; until then the old rules stay in force",
    ),
    "exporter": Check(SIDECARS, "spans reach the collector", "see the check `collector`"),
    "name": Check(
        NAMES,
        "each app that serves is found under its name",
        "`postern resolve APP` shows what was asked and answered",
    ),
    "certificate": Check(
        CERTIFICATES,
        "each sidecar holds a certificate that lasts",
        "see the checks of the authority and the clock",
    ),
    "same-anchors": Check(
        CERTIFICATES,
        "sidecars trust the same roots",
        "restart the sidecars that hold other roots; those given with DAPR_TRUST_ANCHORS must be the same everywhere",
    ),
}


class Finding(Struct, frozen=True, kw_only=True):
    """One line. id: a key of `CHECKS`."""

    id: str
    state: State
    text: str
    hint: str = ""

    @property
    def group(self) -> str:
        """Where it is listed."""
        return CHECKS[self.id].group


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(id=check, state="ok", text=text)


def warn(check: str, text: str, hint: str = "") -> Finding:
    """Something to know, that keeps nothing from working."""
    return Finding(id=check, state="warning", text=text, hint=hint or CHECKS[check].hint)


def fail(check: str, text: str, hint: str = "") -> Finding:
    """Calls fail, or will soon."""
    return Finding(id=check, state="failed", text=text, hint=hint or CHECKS[check].hint)


class Probe(Struct, frozen=True, kw_only=True):
    """One check to run. what: the subject of the line where it does not end in time."""

    id: str
    what: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    within_s: float = 5.0


async def run_all(probes: Sequence[Probe]) -> tuple[Finding, ...]:
    """Everything that the probes find, in their order, after the slowest one's deadline at the latest."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_run(probe)) for probe in probes]
    return tuple(finding for task in running for finding in task.result())


async def _run(probe: Probe) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(probe.within_s):
            return await probe.run()
    except TimeoutError:
        return (fail(probe.id, f"{probe.what}: no result within {probe.within_s:g} s"),)
    except OSError as error:
        return (fail(probe.id, f"{probe.what}: {error.strerror or error}"),)


def blocking(work: Callable[[], ResultT]) -> Callable[[], Coroutine[Any, Any, ResultT]]:
    """`work` in a thread that nobody has to wait for, not even at the end of the process: a disk or a name server may hang."""

    async def run() -> ResultT:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[ResultT] = loop.create_future()

        def tell(result: ResultT | None, error: Exception | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type] # a result of None is one of ResultT

        def thread() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 - raised again where it is awaited
                error = caught
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, result, error)

        threading.Thread(target=thread, name="check", daemon=True).start()
        return await done

    return run
