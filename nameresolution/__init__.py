"""Resolves an app-id to endpoints."""
