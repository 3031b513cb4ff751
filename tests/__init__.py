"""Tests of postern."""
