"""CTRL: aligns rows with their texts, and keeps only the tabular model."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "AlignmentObjective": "alignment",
        "Alignment": "alignment",
        "JointAlignment": "joint_alignment",
    },
)
