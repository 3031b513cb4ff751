"""Runnable examples; public commands only."""
