"""What `postern check` looks at: one module for each part of what can go wrong."""
