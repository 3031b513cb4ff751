"""`component: sqlite`: sidecars of one host that meet in a table of a SQLite database, as Dapr's do."""
