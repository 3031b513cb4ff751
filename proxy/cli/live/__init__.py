"""Behind the dashboard: sidecars polled while somebody looks, their calls and logs as they come, and the server of the page."""
