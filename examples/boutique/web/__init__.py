"""The shop's pages: markup, style and drawings; no calls are made from here."""
