"""Tests of the postern command."""
