"""The same generated messages through every engine: what one does, all do."""
