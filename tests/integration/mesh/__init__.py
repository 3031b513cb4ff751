"""Tests of whole meshes: real sidecars, apps and clients."""
