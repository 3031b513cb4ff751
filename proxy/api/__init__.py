"""The sidecar's own API: health, metadata, status, and the private sockets that serve them."""
