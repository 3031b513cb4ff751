"""The certificate authority and the workload's side of it."""
