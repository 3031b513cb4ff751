"""Rules as frozen values, and what they decide: pure, clock and chance passed in."""
