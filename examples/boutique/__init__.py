"""A small shop of nine services that speak plain HTTP and gRPC and know nothing of a mesh."""
