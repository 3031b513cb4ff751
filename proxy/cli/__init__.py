"""The postern command."""
