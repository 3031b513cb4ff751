"""Dapr's gRPC API, which SDKs call on the sidecar's ports, and its callback in gRPC apps. Loaded when first called: grpcio takes 20 MB."""
