"""`component: consul`: sidecars that register with a Consul agent and watch its catalogue, as Dapr's do."""
