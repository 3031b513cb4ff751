"""Turns a request's head into a Plan, a Reply or a Hold. Pure."""
