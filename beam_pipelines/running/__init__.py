"""How jobs are run, whole or not at all, on Beam's runners."""
