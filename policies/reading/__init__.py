"""Turns YAML documents into rules and values, with every fault at its place."""
