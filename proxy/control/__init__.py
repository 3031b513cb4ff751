"""The control plane: what changes Plans, and the life cycle of the sidecar's parts."""
