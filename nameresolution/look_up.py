"""One name looked up afresh, source by source: how long each took, what it gave, and what is left out of that.

For people who ask why a name is not found. Takes sources of its own, so that what the directory keeps neither answers nor changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from msgspec import Struct

from nameresolution.merge import FILE_SOURCE, Own, Report, merge, why_foreign
from nameresolution.resolver import AppName, Endpoint, EndpointSet, Found, Push, Resolver, SourceFailure

WITHIN_S = (
    3.0  # as long as a call waits for a name: mDNS gives up after two seconds, and says more than "no answer"
)


class Given(Struct, frozen=True, kw_only=True):
    """An endpoint as a source gave it; `ignored` is why it does not count, or empty."""

    endpoint: Endpoint
    ignored: str = ""


class Asked(Struct, frozen=True, kw_only=True):
    """One source. `took_s` is None where it said nothing in time; `failure` is set where it has no endpoints."""

    source: str
    took_s: float | None
    given: tuple[Given, ...] = ()
    failure: SourceFailure | None = None


class LookUp(Struct, frozen=True, kw_only=True):
    """What each source said, in order of precedence, and what that amounts to."""

    asked: tuple[Asked, ...]
    found: EndpointSet


async def look_up(
    resolvers: Sequence[Resolver], name: AppName, own: Own, *, within_s: float = WITHIN_S
) -> LookUp:
    """Ask all sources at once; returns when each has answered, or the time is over."""
    said: dict[str, tuple[float, Found]] = {}
    all_said = asyncio.Event()
    began = time.monotonic()

    def push(source: str, of: AppName, found: Found) -> None:
        if of == name and source not in said:
            said[source] = (time.monotonic() - began, found)
            if len(said) == len(resolvers):
                all_said.set()

    for resolver in resolvers:
        resolver.watch(name)
    try:
        async with asyncio.timeout(within_s), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_run(resolver, name, push)) for resolver in resolvers]
            await all_said.wait()
            for task in running:
                task.cancel()
    except TimeoutError:
        pass
    reports = [_report(resolver.source, said.get(resolver.source), within_s) for resolver in resolvers]
    is_decided = any(report.source == FILE_SOURCE and report.endpoints for report in reports)
    asked = tuple(
        Asked(
            source=report.source,
            took_s=said[report.source][0] if report.source in said else None,
            given=tuple(
                Given(
                    endpoint=end, ignored=_why_ignored(report.source, end, name, own, is_decided=is_decided)
                )
                for end in report.endpoints
            ),
            failure=report.failure,
        )
        for report in reports
    )
    return LookUp(asked=asked, found=merge(name, reports, own))


async def _run(resolver: Resolver, name: AppName, push: Push) -> None:
    try:
        await resolver.run(push)
    except Exception as error:  # noqa: BLE001 - the boundary of one source: what the others say is wanted the more
        push(resolver.source, name, SourceFailure(reason=f"failed ({type(error).__name__}: {error})"))


def _report(source: str, said: tuple[float, Found] | None, within_s: float) -> Report:
    if said is None:
        return Report(source=source, failure=SourceFailure(reason=f"no answer within {within_s:.1f} s"))
    found = said[1]
    if isinstance(found, SourceFailure):
        return Report(source=source, failure=found)
    return Report(source=source, endpoints=found)


def _why_ignored(source: str, endpoint: Endpoint, name: AppName, own: Own, *, is_decided: bool) -> str:
    if is_decided and source != FILE_SOURCE:
        return "because the file of fixed endpoints has this name"
    return why_foreign(endpoint, name, own) or ""
