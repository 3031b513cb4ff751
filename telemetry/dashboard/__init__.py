"""The dashboard's page, and what is computed for it: where the graph's nodes stand, traces as rows, who may ask."""
