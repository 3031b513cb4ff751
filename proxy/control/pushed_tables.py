"""What deciders ask by number: path tables and header sets, as the views in force have them, to be pushed to an engine."""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from proxy.contract.recording import Table, Tables
from proxy.deciding.app_plan import GRPC_WEB
from proxy.deciding.browsers import BEYOND_PAGES, PREFLIGHT
from proxy.deciding.callee import (
    API_TOKEN_SET,
    BEARER_SET,
    BEYOND_PAGES_SET,
    DAPR_METHODS,
    FOREIGN_SITE_SET,
    GRPC_WEB_SET,
    HEDGED_METHODS,
    IDEMPOTENCY_SET,
    OTLP_PATHS,
    OUT_PATHS,
    PREFLIGHT_SET,
    SERVICES,
    TRUTHY_SET,
    DaprMethods,
    OtlpPaths,
    OutPaths,
    Services,
)
from proxy.deciding.hedging import HedgedMethods
from proxy.deciding.inbound import InboundView
from proxy.deciding.outbound_view import OutboundView
from proxy.deciding.pipeline import Pipeline
from proxy.deciding.repeatable import IDEMPOTENCY
from proxy.deciding.tokens import BEARER
from proxy.settings.values import Settings
from telemetry.hosts import FOREIGN_SITES

NAMING: Final[Mapping[int, Table]] = {
    OUT_PATHS: OutPaths(),
    SERVICES: Services(),
    DAPR_METHODS: DaprMethods(),
    OTLP_PATHS: OtlpPaths(),
}
_TRUTHY: Final = frozenset(
    {b"y", b"yes", b"t", b"true", b"on", b"1", b"Y", b"Yes", b"YES", b"T", b"True", b"TRUE", b"On", b"ON"}
)


class PushedTables(Struct, frozen=True):
    """Those of the views in force. pipelines: by their side."""

    settings: Settings
    inbound: InboundView
    outbound: OutboundView
    pipelines: Mapping[str, Pipeline]

    def of_policies(self) -> Iterator[tuple[int, Table]]:
        """The path tables that change with the policies; those of `NAMING` never do."""
        yield from self.outbound.sampling.tables()
        yield HEDGED_METHODS, HedgedMethods(self.outbound.traffic.hedged_methods)
        yield from self.inbound.authorizer.tables()
        yield from self.inbound.limits.tables()
        yield from self.outbound.faults.tables()
        for pipeline in self.pipelines.values():
            yield from pipeline.tables().items()

    def sets(self) -> dict[int, frozenset[bytes]]:
        """The header sets."""
        token = self.settings.api_token
        return {
            API_TOKEN_SET: frozenset({token.encode()} if token else ()),
            TRUTHY_SET: _TRUTHY,
            FOREIGN_SITE_SET: FOREIGN_SITES,
            BEYOND_PAGES_SET: BEYOND_PAGES,
            PREFLIGHT_SET: PREFLIGHT,
            GRPC_WEB_SET: GRPC_WEB,
            BEARER_SET: BEARER,
            IDEMPOTENCY_SET: IDEMPOTENCY,
            **self.outbound.tracing_sets,
            **dict(self.inbound.authorizer.sets()),
            **dict(self.inbound.limits.sets()),
            **dict(self.outbound.faults.sets()),
        }

    def tables(self) -> Tables:
        """All of it, for who asks a decider without an engine."""
        made = Tables()
        for number, table in (*NAMING.items(), *self.of_policies()):
            made.put_paths(number, table)
        for number, members in self.sets().items():
            made.put_set(number, members)
        return made
