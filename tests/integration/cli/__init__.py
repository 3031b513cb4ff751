"""The postern command with real sidecars and apps."""
