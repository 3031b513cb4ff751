"""Unit tests of sentry."""
