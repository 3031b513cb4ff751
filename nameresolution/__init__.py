"""App-id to endpoints."""
