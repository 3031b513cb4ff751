"""A request's head to a Plan, a Reply or a Hold. Pure."""
