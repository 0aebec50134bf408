"""Methods that bring offline knowledge into a backbone."""
