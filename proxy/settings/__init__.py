"""Turns flags, environment and files into frozen settings, or reports every fault at once."""
