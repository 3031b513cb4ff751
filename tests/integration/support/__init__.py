"""Tests: integration: support."""
