"""The sidecar: decides per request, hands a Plan to an engine."""
