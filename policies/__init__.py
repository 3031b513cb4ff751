"""What may be called, and how hard we try."""
