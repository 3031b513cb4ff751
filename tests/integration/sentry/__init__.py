"""Sentry as a real process, with real clients."""
