"""CTRL: rows and their texts are aligned, and only the tabular model is kept."""

from tfctr.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Aligning": "alignment",
        "Alignment": "alignment",
        "JointAlignment": "joint_alignment",
    },
)
