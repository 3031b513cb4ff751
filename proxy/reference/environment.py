"""The environment variables that postern reads and that `postern run` sets, for the reference page. A test checks both."""

from collections.abc import Mapping

READ: Mapping[str, str] = {
    "POSTERN_HOME": "the runtime root, where this user's sidecars and commands meet; `--runtime-path` wins",
    "XDG_RUNTIME_DIR": "without POSTERN_HOME, `postern` in this folder is the runtime root",
    "XDG_STATE_HOME": "without XDG_RUNTIME_DIR, `postern` in this folder is the runtime root",
    "HOME": "without either, `.local/state/postern` in this folder is the runtime root",
    "POSTERN_ENGINE": "auto, native or portable; `--engine` wins",
    "POSTERN_THREADS": "threads of the native engine; `--threads` wins",
    "POSTERN_KEEP_OPEN_CALLS": "true: a new access policy leaves open calls alone; `--keep-open-calls` wins",
    "POSTERN_NO_DECISION_CACHE": "true: every call is decided afresh; `--no-decision-cache` wins",
    "NAMESPACE": "our namespace (default); `--namespace` wins",
    "DAPR_HOST_IP": "the address that peers are told to dial; `--host-ip` wins",
    "DAPR_API_TOKEN": "the token that the API asks of the app (and that `postern invoke` sends)",
    "APP_API_TOKEN": "the token that the app is given with each call",
    "DAPR_HTTP_PORT": "the HTTP API that `postern wait` asks where no flag names it",
    "DAPR_HTTP_DISABLE_H2C": "no effect but a warning: HTTP/2 with prior knowledge is always accepted",
    "DAPR_TRUST_ANCHORS": "PEM roots of the mesh; `--trust-anchors-file` wins",
    "DAPR_SENTRY_TOKEN_FILE": "a file with the token that sentry asks for",
    "DAPR_CONTROLPLANE_TRUST_DOMAIN": "trust domain of sentry's identity; `--control-plane-trust-domain` wins",
    "DAPR_CONTROLPLANE_NAMESPACE": "namespace of sentry's identity; `--control-plane-namespace` wins",
    "SENTRY_LOCAL_IDENTITY": "the name to request a certificate for, instead of the app-id",
    "NO_COLOR": "if set, commands print without colours (no-color.org)",
    "TERM": "`dumb`: commands print without colours",
    "NO_PROXY": "passed on to the app with the loopback addresses added",
}
SET: Mapping[str, str] = {
    "APP_ID": "the app-id",
    "APP_PORT": "where the app is to listen",
    "PORT": "the same, where nothing else sets it",
    "APP_PROTOCOL": "what the sidecar speaks to the app",
    "APP_CHANNEL_ADDRESS": "the host that the sidecar finds the app at",
    "DAPR_HTTP_PORT": "the HTTP API",
    "DAPR_GRPC_PORT": "the gRPC API",
    "DAPR_METRICS_PORT": "the metrics",
    "<APP>_ADDR": "`localhost:port` of each `--upstream`: CART_ADDR for cart",
    "no_proxy": "the loopback addresses, so that clients don't send calls to the sidecar through an HTTP proxy",
    "PYTHONUNBUFFERED": "1, where nothing else sets it, so that a Python app's output is seen at once",
}
