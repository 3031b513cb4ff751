"""Values of resources that are not written there: a variable of the environment, or a secret of a store that postern does not have."""

from collections.abc import Mapping

NO_SECRETS = "names a secret, and postern has no secret stores (expected value, or envRef for a variable of the environment)"


def read_variable(name: str, env: Mapping[str, str], *, kind: str) -> tuple[str, str | None]:
    """Its value, empty where it has none, and what is wrong with it, if anything. kind: of resources, for that text.

    What the sidecar is told in its own variables, tokens of its API among them, is not for resources: they may send it elsewhere.
    """
    if name == "APP_API_TOKEN" or name.startswith("DAPR_"):
        return "", f"{name} is for the sidecar alone and not for {kind} (expected another variable)"
    return env.get(name, ""), None if name in env else f"variable {name} is not set"
