"""YAML documents to rules and values, with every fault at its place."""
