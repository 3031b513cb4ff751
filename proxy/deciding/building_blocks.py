"""Dapr's building blocks that postern does not have: their paths, and how a call to one is answered. Pure.

Source: Dapr's HTTP API reference; the error codes are those that a daprd without such a component gives.
"""

import re

_PATH = re.compile(r"/v1\.0(?:-alpha1|-alpha2|-beta1)?/([a-z]{1,13})(?:/.*)?", re.DOTALL)
_ONLY_INVOCATION = "postern carries service invocation only and has no such building block"
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


# Of Dapr's gRPC API: a part of a method's name, and the block that it belongs to. The first that fits counts: there are states of actors.
_METHODS = (
    ("Actor", "actors"),
    ("Workflow", "workflows"),
    ("State", "state"),
    ("Publish", "publish"),
    ("TopicEvents", "subscribe"),
    ("Binding", "bindings"),
    ("Secret", "secrets"),
    ("Configuration", "configuration"),
    ("TryLock", "lock"),
    ("Unlock", "unlock"),
    ("Encrypt", "crypto"),
    ("Decrypt", "crypto"),
    ("Subtle", "crypto"),
    ("Job", "jobs"),
    ("Converse", "conversation"),
    ("Vector", "vectors"),
    ("Collection", "vectors"),
    ("BinaryFile", "binaryfiles"),
    ("Index", "search"),
    ("Document", "search"),
    ("Search", "search"),
)
# Blocks that only the gRPC API has, so that HTTP has no code of theirs: Dapr's for what is not there at all serves.
_UNIMPLEMENTED = "ERR_API_UNIMPLEMENTED"
_OF_GRPC = {
    "vectors": ("a vector store", _UNIMPLEMENTED),
    "binaryfiles": ("a store of binary files", _UNIMPLEMENTED),
    "search": ("search", _UNIMPLEMENTED),
}


def block_of_method(method: str) -> str | None:
    """`state` for `SaveState`, `DeleteBulkState` and the like; None for a method that is not a building block's."""
    return next((block for part, block in _METHODS if part in method), None)


def missing_method(block: str) -> tuple[str, str]:
    """The error message and code for the caller of a building block's method; the code is that of the block's paths."""
    what, code = _OF_GRPC[block] if block in _OF_GRPC else _BLOCKS[block]
    return f"{_ONLY_INVOCATION}: {what}; run a daprd beside it for that", code


def block_of(path: str) -> str | None:
    """`state` for `/v1.0/state/…`; None for a path that is not a building block's."""
    match = _PATH.fullmatch(path)
    return match[1] if match is not None and match[1] in _BLOCKS else None


def missing(block: str) -> tuple[str, str]:
    """The error message and code for the caller of a building block."""
    what, code = _BLOCKS[block]
    text = (
        f"{_ONLY_INVOCATION}: {what} (/{block}); "
        "run a daprd beside it for that, or, to call an app with a path like this, name it with the header dapr-app-id"
    )
    return text, code


def missing_service(service: str) -> str:
    """The same for a service or method of Dapr's gRPC API that is none of those."""
    return (
        f"this method of {service} is not served: of Dapr's gRPC API postern has InvokeService, GetMetadata, SetMetadata and "
        "Shutdown, and no building block but service invocation; an app's own service is called as it is, with the metadata dapr-app-id"
    )
