"""What policies decided so far, from the counters that metrics show: access by caller and rule, resiliency by policy, retries by reason."""

from typing import Any

from telemetry.metrics import Meters

Json = dict[str, Any]
MOST = 100  # rows of each kind, the most frequent


def decisions(meters: Meters) -> dict[str, list[Json]]:
    """access: src, policy, decision, calls. resiliency: name, policy, direction, target, calls, activations (calls that it changed);
    path, where metrics have it.
    retries: dst, reason, attempts.
    """
    activations = meters.resiliency_activations.slots
    access: list[Json] = [
        {**dict(zip(meters.acl_decisions.labels, labels, strict=True)), "calls": slot.value}
        for labels, slot in meters.acl_decisions.slots.items()
    ]
    resiliency = []
    for labels, slot in meters.resiliency_count.slots.items():
        told = dict(zip(meters.resiliency_count.labels, labels, strict=True))
        changed = activations.get(labels)
        row: Json = {key: told[key] for key in ("name", "policy", "target", "status", "path") if key in told}
        activated = changed.value if changed is not None else 0
        resiliency.append(
            {**row, "direction": told["flow_direction"], "calls": slot.value, "activations": activated}
        )
    retries: list[Json] = [
        {"dst": dst, "reason": reason, "attempts": slot.value}
        for (dst, reason), slot in meters.retries.slots.items()
    ]
    return {
        "access": sorted(access, key=lambda row: -row["calls"])[:MOST],
        "resiliency": sorted(resiliency, key=lambda row: -row["calls"])[:MOST],
        "retries": sorted(retries, key=lambda row: -row["attempts"])[:MOST],
    }
