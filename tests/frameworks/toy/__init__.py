"""A method of a folder alone: one constant field."""

from tfctr.saving import defer

defer(f"{__name__}.student", "ToyStudent", package="tests")
