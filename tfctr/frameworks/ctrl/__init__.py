"""CTRL: rows and their texts are aligned, and only the tabular model is kept."""

from tfctr.frameworks.ctrl.alignment import Aligning, Alignment

__all__ = ["Aligning", "Alignment"]
