"""Rules as frozen values, and what they decide: pure, clock and randomness passed in."""
