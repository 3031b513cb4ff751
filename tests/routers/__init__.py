"""Apps on the web frameworks that people use, and how those read paths."""
