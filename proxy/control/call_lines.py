"""The access log of one sidecar: gives an engine what lines are made of, or writes them itself, and hands them to the file."""

from collections.abc import Callable

from proxy.contract.engine import LinesWanted
from proxy.contract.outcome import Outcome
from proxy.contract.plan import Labels
from proxy.control.notes import timings_of
from telemetry.call_lines import is_wanted, pieces, render
from telemetry.line_form import LineFilter, LineForm
from telemetry.report import Call


class CallLines:
    """See `Lines`. Mutable state: `form`, `chosen` and `hides_paths`, which a new configuration may change.

    put: takes whole lines; lose: counts those that are lost, and says why.
    """

    def __init__(
        self,
        form: LineForm,
        chosen: LineFilter,
        put: Callable[[bytes], None],
        lose: Callable[[int, str], None],
        *,
        hides_paths: bool,
    ) -> None:
        self.hides_paths = hides_paths
        self.form = form
        self.chosen = chosen
        self._put = put
        self._lose = lose

    @property
    def wanted(self) -> LinesWanted:
        """Which calls have a line."""
        chosen = self.chosen
        return LinesWanted(
            is_json=self.form.is_json,
            min_status=chosen.min_status,
            slower_ns=chosen.slower_ns,
            every=chosen.every,
            hides_paths=self.hides_paths,
        )

    def pieces(self, labels: Labels) -> list[tuple[str, bytes]] | None:
        """What lines of calls with these labels are made of; None for calls that don't cross the mesh."""
        if not labels.dst:
            return None
        known = {
            "direction": labels.direction,
            "src": labels.src,
            "src_namespace": labels.src_namespace,
            "dst": labels.dst,
            "dst_namespace": labels.dst_namespace,
            "peer": labels.peer_id,
            "decision": labels.decision,
            "policies": [f"{name}/{kind}" for name, _, kind, _ in labels.policies],
        }
        return pieces(self.form, known, is_by_path=labels.strip, is_grpc=labels.is_grpc_web)

    def written(self, lines: bytes, lost: int) -> None:
        """Take lines that an engine wrote."""
        if lines:
            self._put(lines)
        if lost:
            self._lose(lost, "calls end faster than their lines are taken")

    def write(self, call: Call, outcome: Outcome) -> None:
        """Write the line of a call that ended, if it is to have one."""
        if is_wanted(self.chosen, call):
            self._put(
                render(self.form, call, timings_of(outcome), outcome.head.get, hides_paths=self.hides_paths)
            )
