"""Telemetry against real collectors."""
