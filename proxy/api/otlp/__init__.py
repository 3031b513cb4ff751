"""Takes what the app exports by OpenTelemetry's protocol on the API ports, and passes it on to the collector."""
