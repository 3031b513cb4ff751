"""Lint of documents before anything runs: what their readers find, with codes, and what only shows when files are seen together."""
