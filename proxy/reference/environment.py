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
    "POSTERN_ACCESS_LOG": "where a line for each call goes; `--access-log` wins",
    "POSTERN_ACCESS_LOG_FORMAT": "what is in it; `--access-log-format` wins",
    "POSTERN_NO_DECISION_CACHE": "true: every call is decided afresh; `--no-decision-cache` wins",
    "NAMESPACE": "our namespace (default); `--namespace` wins",
    "DAPR_HOST_IP": "the address that peers are told to dial; `--host-ip` wins",
    "DAPR_API_TOKEN": "the token that the API asks of the app (and that `postern invoke` sends)",
    "APP_API_TOKEN": "the token that the app is given with each call",
    "DAPR_HTTP_PORT": "the HTTP API that `postern wait` asks where no flag names it",
    "DAPR_HTTP_DISABLE_H2C": "no effect but a warning: HTTP/2 without TLS is always accepted, with prior knowledge and by `Upgrade: h2c`",
    "DAPR_RUNTIME_PATH": "the folder of Dapr's `.dapr` (HOME), for `postern run` and `postern init --shim`, where `--dapr-path` wins",
    "HTTPS_PROXY": "the HTTP proxy, `http://[user:password@]host:port`, for calls that leave the mesh to https URLs, and for the fetching "
    "of keys and tokens from them, sentry's too",
    "HTTP_PROXY": "the same for http URLs; both also in lower case, and neither ever for loopback; `https://` is a proxy that speaks TLS "
    "itself, by which keys and tokens of https URLs are not fetched",
    "NO_PROXY": "what is reached without: names, `.domain`, addresses (all with `:port`), CIDRs, or `*`; apps get it with loopback added",
    "DAPR_TRUST_ANCHORS": "PEM roots of the mesh; `--trust-anchors-file` wins",
    "DAPR_SENTRY_TOKEN_FILE": "a file with the token that sentry asks for",
    "DAPR_CONTROLPLANE_TRUST_DOMAIN": "trust domain of sentry's identity; `--control-plane-trust-domain` wins",
    "DAPR_CONTROLPLANE_NAMESPACE": "namespace of sentry's identity; `--control-plane-namespace` wins",
    "SENTRY_LOCAL_IDENTITY": "the name to request a certificate for, instead of the app-id",
    "CONSUL_HTTP_ADDR": "`address` under `client` of `component: consul`, where that is left out",
    "CONSUL_HTTP_TOKEN": "`token`, likewise",
    "CONSUL_HTTP_TOKEN_FILE": "`tokenFile`, likewise",
    "CONSUL_HTTP_AUTH": "`httpAuth`, as `user:password`, likewise",
    "CONSUL_HTTP_SSL": "true: `scheme` https, likewise",
    "CONSUL_HTTP_SSL_VERIFY": "false: `tlsConfig.insecureSkipVerify`, likewise",
    "CONSUL_TLS_SERVER_NAME": "`tlsConfig.address`, likewise",
    "CONSUL_CACERT": "`tlsConfig.caFile`, likewise",
    "CONSUL_CAPATH": "`tlsConfig.caPath`, likewise",
    "CONSUL_CLIENT_CERT": "`tlsConfig.certFile`, likewise",
    "CONSUL_CLIENT_KEY": "`tlsConfig.keyFile`, likewise",
    "CONSUL_NAMESPACE": "Consul's namespace, likewise",
    "CONSUL_PARTITION": "Consul's partition, likewise",
    "OTEL_SDK_DISABLED": "true: no spans, metrics and logs are exported, ours or the app's, whatever Configurations and other variables "
    "say; what stays is `postern trace` and the metrics port (as daprd: no effect but a warning)",
    "OTEL_TRACES_SAMPLER": "which new traces are recorded if no Configuration has `spec.tracing.samplingRate`: parentbased_always_on, "
    "parentbased_always_off or parentbased_traceidratio. A caller's own decision always holds: always_on, always_off and traceidratio are "
    "taken as parentbased, with a warning; jaeger_remote and xray have no effect but a warning (as daprd: likewise)",
    "OTEL_TRACES_SAMPLER_ARG": "the share of new traces for traceidratio, 0 to 1 (1)",
    "OTEL_PROPAGATORS": "no effect but a warning: headers are those of `spec.tracing.accept`",
    "OTEL_TRACES_EXPORTER": "where spans go, with commas between: `otlp` (to localhost without a variable of its endpoint), `zipkin`, "
    "`console` (the log), `none`, or any exporter that is installed beside us, by the name of its entry point, which gets no spans of the "
    "app; Configurations add to it (as daprd: not read)",
    "OTEL_LOGS_EXPORTER": "`otlp`: our log goes to the collector, too (to localhost without a variable of its endpoint); anything else "
    "changes nothing (as daprd: not read). For the access log see `--access-log`",
    "OTEL_METRICS_EXPORTER": "without `otlp` in it, such as `none`, metrics are not pushed; naming it does not push them without "
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, and does not turn the metrics port on or off (as daprd: no effect but a warning)",
    "OTEL_EXPORTER_ZIPKIN_ENDPOINT": "where `zipkin` in OTEL_TRACES_EXPORTER sends, if no Configuration says "
    "(http://localhost:9411/api/v2/spans)",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "where spans go as OTLP if no Configuration names a collector, as http://host:4317; all calls are "
    "sampled then unless a rate is written. For this one and the next eight, `OTEL_EXPORTER_OTLP_TRACES_…` wins",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc (without any), http/protobuf or http/json",
    "OTEL_EXPORTER_OTLP_INSECURE": "true: no TLS; unset, the scheme decides (as daprd: TLS)",
    "OTEL_EXPORTER_OTLP_HEADERS": "headers for the collector, as name=value,name=value, percent-encoded",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "milliseconds of one export (10000)",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "a PEM file with roots that the collector's certificate is checked by (the system's)",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "none: bodies are not gzipped, which they are from a KiB on",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "a PEM file with the certificate, and what it is signed by, that a collector is "
    "shown over TLS; read at the start",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "a PEM file with its key, without a password",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "where metrics are pushed as OTLP, which they are not by the common endpoint alone; the "
    "variables above count for them, and `OTEL_EXPORTER_OTLP_METRICS_…` wins",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "where logs go, ours and those that the app exports to us, else where spans go; likewise for "
    "the app's metrics and the variable above. Both are heeded before Configurations; `OTEL_EXPORTER_OTLP_LOGS_…` wins",
    "OTEL_METRIC_EXPORT_INTERVAL": "milliseconds from one push of metrics to the next (60000)",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "what pushed counters and histograms report: totals since the start"
    " (cumulative), or the change since the last push (delta, lowmemory) (cumulative)",
    "OTEL_SERVICE_NAME": "`service.name` of our spans, for any OTLP collector (the app-id)",
    "OTEL_RESOURCE_ATTRIBUTES": "further attributes of the resource, as name=value,name=value, percent-encoded",
    "OTEL_BSP_MAX_QUEUE_SIZE": "spans that wait for an exporter (2048; of the native engine, 8 MiB); beyond, the oldest is dropped",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "spans of a batch (512)",
    "OTEL_BSP_SCHEDULE_DELAY": "milliseconds until a smaller batch is sent (5000)",
    "OTEL_BSP_EXPORT_TIMEOUT": "milliseconds that a batch may take, each time it is sent (30000)",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "as `OTEL_BSP_MAX_QUEUE_SIZE`, of log records (what that says)",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "likewise",
    "OTEL_BLRP_SCHEDULE_DELAY": "likewise",
    "OTEL_BLRP_EXPORT_TIMEOUT": "likewise",
    "NO_COLOR": "if set, commands print without colours (no-color.org)",
    "TERM": "`dumb`: commands print without colours",
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
