"""The shop's services, one module each; each runs by itself as `python -m`."""
