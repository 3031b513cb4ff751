"""The snapshot in force, read in a process of its own and replaced whole when files change."""
