"""The sidecars of this host: whether they answer and are ready, what they say of app, policies and exporters, names and certificates."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from nameresolution.host_registry import Entry
from nameresolution.registry_resolver import why_not_serving
from proxy.cli.checks.app_protocol import mismatch, spoken_at
from proxy.cli.checks.findings import Finding, Probe, fail, ok, warn
from proxy.cli.checks.host import duration
from proxy.cli.checks.network import reason
from proxy.cli.fleet import SidecarAnswer
from proxy.cli.listing import LOOK_UP_S, looked_up, why_nothing
from proxy.settings.version import VERSION

Told = Mapping[str, Any]
_SOON_S: Final = 60.0  # a certificate is renewed at half its life: this late, several renewals have failed
_ASK_S: Final = 2.0  # a sidecar that answers this late is slow, not dead
LOCAL: Final = "local"  # as /status has it
_TURNED_S: Final = 2.0  # between the two clocks; less is rounding and the time that asking takes


def check_sidecars(asked: Sequence[SidecarAnswer], *, is_close: bool = False) -> tuple[Finding, ...]:
    """A line for each sidecar, then what is wrong with it, then what they should have in common.

    is_close: nothing looks closer than this.
    """
    if not asked:
        return (ok("sidecar", "no sidecar of postern runs"),)
    found: list[Finding] = []
    for each in asked:
        found += _sidecar(each, is_close=is_close)
        if each.answer is not None:
            found += [*_policy(each.entry.app_id, each.answer), *_exporters(each.entry.app_id, each.answer)]
    return (*found, *_same_engine(asked))


def _sidecar(asked: SidecarAnswer, *, is_close: bool) -> Iterator[Finding]:
    entry, told = asked.entry, cast("Told | None", asked.answer)
    if told is None:
        text = f"{entry.app_id}: its sidecar (pid {entry.pid}) does not answer on {entry.admin_socket or 'any socket'}"
        yield fail("sidecar", text, f"if it stays so, end process {entry.pid} and start the app again")
        return
    engine = f"{told.get('engine')} engine"
    if told.get("ready"):
        yield ok("sidecar", f"{entry.app_id} is ready ({engine}, pid {entry.pid})")
    else:
        why = "; ".join(map(str, told.get("notReady") or ())) or "it does not say why"
        closer = "" if is_close else f"`postern check {entry.app_id} --proxy` looks closer, "
        yield fail(
            "sidecar",
            f"{entry.app_id} is not ready: {why}",
            f"{closer}`postern logs {entry.app_id}` tells more",
        )
    app = told.get("app") or {}
    if app.get("heldByForeign"):
        text = f"{entry.app_id}: port {app.get('port')} is held by {app.get('heldBy')}, which is not the app that was started here"
        yield fail("app", text, "end that program, or give the app another port")
    if told.get("version") != VERSION:
        text = f"{entry.app_id}: its sidecar is version {told.get('version')}, this command {VERSION}"
        yield warn("version", text)


def _policy(app_id: str, told: Told) -> Iterator[Finding]:
    policy = told.get("policy") or {}
    if policy.get("lastError"):
        for line in str(policy["lastError"]).split("\n"):
            yield fail("policy", f"{app_id}: {line}")
    for line in policy.get("warnings") or ():
        yield warn("policy", f"{app_id}: {line}", "`postern analyze FILE` checks it before it is in force")


_EXPORTED = {"otlp-app-metrics": "data points", "otlp-app-logs": "log records", "otlp-logs": "log records"}


def _exporters(app_id: str, told: Told) -> Iterator[Finding]:
    for exporter in told.get("exporters") or ():
        lost = exporter.get("dropped") or {}
        if lost:
            why = ", ".join(f"{count} {cause}" for cause, count in sorted(lost.items()))
            name = exporter["name"]
            sent = f"{exporter['queued']} wait, {exporter['exported']} were taken"
            text = f"{app_id}: {name} lost {_EXPORTED.get(name, 'spans')}: {why}; {sent}"
            yield warn("exporter", text)


def _same_engine(asked: Sequence[SidecarAnswer]) -> tuple[Finding, ...]:
    engines = Counter(str(each.answer.get("engine")) for each in asked if each.answer is not None)
    if len(engines) < 2:
        return ()
    few = min(engines, key=lambda name: engines[name])
    apps = ", ".join(each.entry.app_id for each in asked if each.answer and each.answer.get("engine") == few)
    return (warn("same-engine", f"{apps} with the {few} engine, the others with another"),)


def check_certificates(asked: Sequence[SidecarAnswer], anchors: str) -> tuple[Finding, ...]:
    """anchors: the hash of the local trust anchors, empty where there are none."""
    found = [
        finding
        for each in asked
        if each.answer is not None
        for finding in _certificate(each.entry, each.answer)
    ]
    meshes = Counter(each.entry.mesh for each in asked if each.entry.mesh)
    local = [each for each in asked if sentry_of(each.answer) == LOCAL and each.entry.mesh]
    odd = sorted({each.entry.app_id for each in local if anchors and each.entry.mesh != anchors})
    if odd:
        found.append(
            fail("same-anchors", f"{', '.join(odd)}: trusts other roots than the authority of this host has")
        )
    elif len(meshes) > 1:
        few = min(meshes, key=lambda mesh: meshes[mesh])
        apps = sorted({each.entry.app_id for each in asked if each.entry.mesh == few})
        found.append(
            fail("same-anchors", f"{', '.join(apps)}: trusts other roots than the other sidecars here")
        )
    elif len(asked) > 1 and meshes:
        found.append(ok("same-anchors", "all sidecars trust the same roots"))
    return tuple(found)


def sentry_of(told: Told | None) -> str:
    """Where a sidecar has its certificate from: `LOCAL`, an address, or empty without mutual TLS."""
    identity = (told or {}).get("identity")
    return str(identity.get("sentry") or "") if isinstance(identity, dict) else ""


def _certificate(entry: Entry, told: Told) -> Iterator[Finding]:
    identity = told.get("identity") or {}
    left = identity.get("secondsLeft")
    if not identity.get("mtls"):
        yield warn(
            "certificate",
            f"{entry.app_id} uses no mutual TLS: nobody proves who is calling",
            "leave --insecure-plaintext out, or add --enable-mtls as daprd",
        )
    elif not isinstance(left, int | float):
        yield fail(
            "certificate",
            f"{entry.app_id} has no certificate: {identity.get('lastError') or 'still asking for it'}",
        )
    elif left <= 0:
        yield fail(
            "certificate",
            f"the certificate of {entry.app_id} has ended: {identity.get('lastError') or ''}".rstrip(": "),
        )
    elif left < _SOON_S and identity.get("lastError"):
        yield warn(
            "certificate",
            f"the certificate of {entry.app_id} ends in {duration(left)}: {identity['lastError']}",
        )
    else:
        yield ok(
            "certificate",
            f"{entry.app_id} is {identity.get('spiffeId')}; its certificate lasts {duration(left)} and is renewed before then",
        )


def turned_back(asked: Sequence[SidecarAnswer], now: datetime) -> tuple[tuple[str, float], ...]:
    """The sidecars whose certificates have less left by the clock that nobody can turn than by the wall's, and the seconds between."""
    found = []
    for each in asked:
        identity = (each.answer or {}).get("identity")
        if not isinstance(identity, dict) or not isinstance(identity.get("secondsLeft"), int | float):
            continue
        try:
            by_wall = (datetime.fromisoformat(str(identity.get("notAfter"))) - now).total_seconds()
        except (TypeError, ValueError):
            continue
        if by_wall - identity["secondsLeft"] > _TURNED_S:
            found.append((each.entry.app_id, by_wall - identity["secondsLeft"]))
    return tuple(found)


def name_probes(asked: Sequence[SidecarAnswer]) -> tuple[Probe, ...]:
    """Each name that has an app which serves, looked up by a sidecar that is not its own, where there is one."""
    answering = [each.entry for each in asked if each.answer is not None]
    names = {
        f"{entry.app_id}.{entry.namespace}": entry for entry in answering if entry.app_port and entry.serving
    }
    return tuple(_name_probe(name, _asker(answering, of)) for name, of in sorted(names.items()))


def _asker(answering: Sequence[Entry], of: Entry) -> Entry:
    alike = [entry for entry in answering if entry.mesh == of.mesh]
    return next((entry for entry in alike if entry.app_id != of.app_id), of)


def upstream_probes(asked: SidecarAnswer) -> tuple[Probe, ...]:
    """The callees that one sidecar was told of by `--upstream`, looked up by itself."""
    upstreams = (asked.answer or {}).get("upstreams")
    names = sorted(upstreams) if isinstance(upstreams, dict) else []
    return tuple(
        _name_probe(name if "." in name else f"{name}.{asked.entry.namespace}", asked.entry) for name in names
    )


def _name_probe(name: str, by: Entry) -> Probe:
    async def run() -> Sequence[Finding]:
        (answer,) = await looked_up((by,), name, timeout_s=_ASK_S)
        if answer.answer is None:
            text = f"{name}: the sidecar of {by.app_id}, which was to look it up, does not answer"
            return (fail("name", text, f"see the check `sidecar` of {by.app_id}"),)
        known = answer.answer.get(name)
        ends = known.get("endpoints") if isinstance(known, dict) else None
        if not ends:
            return (
                fail("name", f"{name} is not found by the sidecar of {by.app_id}: {why_nothing((answer,))}"),
            )
        sources = ", ".join(dict.fromkeys(str(end.get("source")) for end in ends))
        stale = ", stale: a source has failed since" if isinstance(known, dict) and known.get("stale") else ""
        count = "1 endpoint" if len(ends) == 1 else f"{len(ends)} endpoints"
        return ((warn if stale else ok)("name", f"{name} is found: {count} ({sources}{stale})"),)

    return Probe(id="name", what=f"name {name}", run=run, within_s=LOOK_UP_S + _ASK_S + 1.0)


def app_probe(asked: SidecarAnswer) -> Probe:
    """One sidecar's own app: its port, health and protocol."""

    async def run() -> Sequence[Finding]:
        return await check_app(asked.entry, asked.answer or {})

    return Probe(id="app", what=f"the app of {asked.entry.app_id}", run=run)


async def check_app(entry: Entry, told: Told) -> tuple[Finding, ...]:
    """Asks the port itself which protocol it speaks."""
    app = told.get("app") or {}
    port, host, protocol = app.get("port"), str(app.get("host") or "127.0.0.1"), str(app.get("protocol"))
    if not port:
        return (ok("app", f"{entry.app_id} has no app port: it only calls"),)
    try:
        spoken = await spoken_at(host, int(port))
    except OSError as error:
        yet = "is the app running, and on that port? --app-port names it"
        return (fail("app", f"the app at {host}:{port}: {reason(error)}", yet),)
    wrong = mismatch(protocol, spoken, host, int(port))
    if wrong:
        return (
            (warn if spoken == "HTTP/2" else fail)(
                "app", wrong, "correct --app-protocol (appProtocol in a run file)"
            ),
        )
    if app.get("healthy") is False:
        return (
            fail(
                "app",
                f"the app at {host}:{port} fails its health probes",
                "see `postern logs` and --app-health-check-path",
            ),
        )
    if not entry.serving:
        return (fail("app", why_not_serving(entry), "`postern logs` shows what the app says"),)
    said = f", speaks {spoken}" if spoken else ""
    return (ok("app", f"the app at {host}:{port} takes connections (named {protocol}{said})"),)
