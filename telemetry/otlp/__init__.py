"""OpenTelemetry's protocol: spans and metrics sent to a collector, and what the app sends, which is passed on."""
