"""Prometheus, alert rules and a Grafana board for a mesh."""
