"""Dapr's building blocks that postern does not have: their paths, and how a call to one is answered. Pure.

Source: Dapr's HTTP API reference; the error codes are those that a daprd without such a component gives.
"""

import re

_PATH = re.compile(r"/v1\.0(?:-alpha1|-alpha2|-beta1)?/([a-z]{1,13})(?:/.*)?", re.DOTALL)
_STATE = ("a state store", "ERR_STATE_STORE_NOT_CONFIGURED")
_PUBSUB = ("publish and subscribe", "ERR_PUBSUB_NOT_CONFIGURED")
_LOCK = ("a lock store", "ERR_LOCK_STORE_NOT_CONFIGURED")
_CRYPTO = ("cryptography", "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED")
_BLOCKS = {
    "state": _STATE,
    "publish": _PUBSUB,
    "subscribe": _PUBSUB,
    "bindings": ("bindings", "ERR_INVOKE_OUTPUT_BINDING"),
    "secrets": ("a secret store", "ERR_SECRET_STORES_NOT_CONFIGURED"),
    "actors": ("actors", "ERR_ACTOR_RUNTIME_NOT_FOUND"),
    "workflows": ("workflows", "ERR_WORKFLOW_COMPONENT_NOT_FOUND"),
    "configuration": ("a configuration store", "ERR_CONFIGURATION_STORE_NOT_CONFIGURED"),
    "lock": _LOCK,
    "unlock": _LOCK,
    "crypto": _CRYPTO,
    "subtlecrypto": _CRYPTO,
    "jobs": ("jobs", "ERR_JOBS_NOT_CONFIGURED"),
    "conversation": ("conversations", "ERR_CONVERSATION_NOT_CONFIGURED"),
}


def block_of(path: str) -> str | None:
    """`state` for `/v1.0/state/…`; None for a path that is not a building block's."""
    match = _PATH.fullmatch(path)
    return match[1] if match is not None and match[1] in _BLOCKS else None


def missing(block: str) -> tuple[str, str]:
    """The error message and code for the caller of a building block."""
    what, code = _BLOCKS[block]
    text = (
        f"postern carries service invocation only and has no such building block: {what} (/{block}); "
        "run a daprd beside it for that, or, to call an app with a path like this, name it with the header dapr-app-id"
    )
    return text, code


def missing_service(service: str) -> str:
    """The same for a service of Dapr's gRPC API."""
    return (
        f"{service} is not served: postern carries service invocation only, gRPC as it is (call the app's own service, with the "
        "metadata dapr-app-id), and has no state store, publish and subscribe or other building block"
    )
