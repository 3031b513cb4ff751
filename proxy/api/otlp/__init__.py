"""Takes what the app exports by OpenTelemetry's protocol on the API ports, and passes it on to where our own spans go."""
