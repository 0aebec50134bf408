"""A method of a folder alone: one constant field."""
