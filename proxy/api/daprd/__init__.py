"""Calls between this sidecar and daprds: HTTP in the envelope that those send each other. Loaded with the first such call."""
