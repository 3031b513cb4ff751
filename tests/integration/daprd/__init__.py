"""Meshes of our sidecars and Dapr's."""
