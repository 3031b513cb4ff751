"""Unit tests of policies."""
