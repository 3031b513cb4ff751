"""Which probes a check runs, by its scope. Brings in certificates, TLS and policies: import it late."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.checks.authority import Authority, authority_probes, read_authority
from proxy.cli.checks.findings import CHECKS, GROUPS, HOST, NETWORK, Finding, Probe, blocking, fail, run_all
from proxy.cli.checks.host import check_clock, host_probes, utc_now
from proxy.cli.checks.network import collector_probe, network_probes
from proxy.cli.checks.sidecars import (
    LOCAL,
    app_probe,
    check_certificates,
    check_sidecars,
    name_probes,
    sentry_of,
    turned_back,
    upstream_probes,
)
from proxy.cli.errors import CliError
from proxy.cli.fleet import SidecarAnswer, ask, entries, nothing_runs, of_app
from sentry.local import LocalPaths

_ASK_S = 2.0  # a sidecar that answers this late is slow, not dead


class Scope(Struct, frozen=True, kw_only=True):
    """What to check. pre: before anything runs. proxy: one sidecar's own view."""

    root: Path
    app_id: str | None = None
    pre: bool = False
    proxy: bool = False
    collectors: tuple[str, ...] = ()


async def look(scope: Scope) -> tuple[Finding, ...]:
    """Check everything in scope once."""
    if scope.proxy:
        return await _look_at_proxies(scope)
    root = scope.root
    running = _registered(root)
    asked = await ask(running, "/status", timeout_s=_ASK_S)
    authority = await blocking(lambda: read_authority(root))()
    now = utc_now()
    clock = check_clock(now, authority.dated, turned_back(asked, now))
    found = await run_all(
        (
            *host_probes(root, running),
            *network_probes((*scope.collectors, *_collectors(asked))),
            *_sentries(root, authority, asked),
            *(() if scope.pre else name_probes(asked)),
        )
    )
    if scope.pre:
        return _ordered(each for each in (*found, *clock) if each.group in (HOST, NETWORK))
    anchors = authority.bundle.mesh_hash() if authority.bundle is not None else ""
    return _ordered((*found, *clock, *check_sidecars(asked), *check_certificates(asked, anchors)))


async def _look_at_proxies(scope: Scope) -> tuple[Finding, ...]:
    try:
        listed = of_app(scope.root, scope.app_id) if scope.app_id else _registered(scope.root)
    except CliError as error:
        return (fail("sidecar", str(error), "start it with `postern run`"),)
    if not listed:
        return (fail("sidecar", nothing_runs(scope.root), "start one with `postern run`"),)
    asked = await ask(listed, "/status", timeout_s=_ASK_S)
    answering = [each for each in asked if each.answer is not None]
    found = await run_all(
        (
            *map(app_probe, answering),
            *map(collector_probe, dict.fromkeys(_collectors(asked))),
            *(probe for each in answering for probe in upstream_probes(each)),
        )
    )
    return _ordered((*check_sidecars(asked, is_close=True), *found, *check_certificates(asked, "")))


def _registered(root: Path) -> tuple[Entry, ...]:
    """What runs; nothing where the root can't be read, which the check of the root says."""
    try:
        return entries(root)
    except OSError:
        return ()


def _sentries(root: Path, authority: Authority, asked: Sequence[SidecarAnswer]) -> tuple[Probe, ...]:
    told = [str(sentry_of(each.answer)) for each in asked if sentry_of(each.answer)]
    others = [
        address for address in told if address != LOCAL and address != f"unix:{LocalPaths(root=root).socket}"
    ]
    return authority_probes(root, authority, is_needed=len(others) < len(told), others=others)


def _collectors(asked: Sequence[SidecarAnswer]) -> Iterator[str]:
    for each in asked:
        exporters = (each.answer or {}).get("exporters")
        for exporter in exporters if isinstance(exporters, list) else ():
            if isinstance(exporter, dict) and exporter.get("collector"):
                yield str(exporter["collector"])


def _ordered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """By group, then by check as the table has them, otherwise as found; what two probes say alike once."""
    checks = list(CHECKS)
    return tuple(
        sorted(dict.fromkeys(found), key=lambda each: (GROUPS.index(each.group), checks.index(each.id)))
    )
