"""Dapr's gRPC API: what SDKs call on the sidecar's gRPC port. Loaded by the first such call, as grpcio takes 20 MB."""
