"""Flags, environment and files to frozen settings, or every fault at once."""
