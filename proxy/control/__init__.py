"""The control plane: what changes Plans, and how the sidecar's parts live together."""
