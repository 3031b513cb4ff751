"""Tests of proxy.api.otlp."""
