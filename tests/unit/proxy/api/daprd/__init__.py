"""Tests of the translation between HTTP and the envelopes of daprds."""
