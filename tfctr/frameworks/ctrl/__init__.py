"""CTRL: rows and their texts are aligned, and only the tabular model is kept."""

from tfctr.frameworks.ctrl.alignment import Aligning, Alignment
from tfctr.frameworks.ctrl.joint_alignment import JointAlignment

__all__ = ["Aligning", "Alignment", "JointAlignment"]
