"""Transforms that jobs share."""
