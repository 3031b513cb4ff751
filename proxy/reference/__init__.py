"""The reference page, generated from the tables that the code itself uses."""
