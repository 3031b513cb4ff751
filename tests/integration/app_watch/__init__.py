"""Tests of the watch over the own app: real servers, with and without reflection and health."""
