"""Which endpoints are genuine: found out by connections of their own, so that calls need not meet impostors."""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from proxy.contract.plan import Cause
from proxy.engine.portable.balance import Load
from proxy.engine.portable.clusters import ClusterState
from proxy.engine.portable.pool import Origin, Waiter
from proxy.wire.streams import UpstreamConnection

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier


def prove_another(carrier: "Carrier", state: ClusterState, beside: Origin) -> None:
    """Connect to an endpoint that has not shown yet who it is, if there is one to try beside this call's own."""
    load = state.to_prove(beside.address, carrier.now())
    if load is None:
        return
    load.proving = True

    def ready(_: UpstreamConnection) -> None:
        load.proving = False
        load.proven = True

    def failed(cause: Cause, _: str) -> None:
        load.proving = False
        lost(load, cause, carrier.now(), is_mesh=beside.tls == "mesh")

    carrier.pool.wait(replace(beside, address=load.address), Waiter(ready, failed))


def lost(load: Load, cause: Cause, now: float, *, is_mesh: bool) -> None:
    """An endpoint could not be reached, or is an impostor: leave it alone for a while."""
    if cause is Cause.TLS_IDENTITY and is_mesh:
        load.put_away(now)
    elif cause in (Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY):
        load.eject(now)
