"""The rules of the examples that need no network."""
