"""Tests of the watch over our own app: real servers, with and without reflection and health."""
