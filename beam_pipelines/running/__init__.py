"""Runs jobs on Beam's runners; the output is complete or absent."""
