"""Tests: unit: bench."""
