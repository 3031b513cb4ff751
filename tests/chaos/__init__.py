"""Meshes in which something goes wrong while calls flow: what callers notice, and for how long."""
