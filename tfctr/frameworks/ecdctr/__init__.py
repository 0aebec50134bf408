"""Organic traffic for the ads model, day after day (E-CDCTR, arXiv:2408.16238)."""

from tfctr.lazy import exports
from tfctr.saving import defer

__getattr__, __all__ = exports(
    __name__,
    {
        "EcdctrServed": "served",
        "EcdctrStudent": "student",
    },
)

defer(f"{__name__}.student", "EcdctrStudent")
