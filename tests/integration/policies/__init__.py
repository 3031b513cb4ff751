"""Policies read from real files, while they change."""
