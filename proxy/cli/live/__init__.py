"""What the dashboard is fed with: sidecars asked over and over, their calls and logs as they come, and the server that tells it."""
