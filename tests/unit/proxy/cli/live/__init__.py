"""Tests of what the dashboard is fed with."""
