"""Tests of telemetry.otlp."""
