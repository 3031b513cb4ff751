"""Tests of what `postern check` looks at."""
