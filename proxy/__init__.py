"""The sidecar: decides about each request and hands a Plan to an engine."""
