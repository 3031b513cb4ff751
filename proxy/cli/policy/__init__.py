"""`postern policy`: access policies judged, tested and compared without anything that runs."""
