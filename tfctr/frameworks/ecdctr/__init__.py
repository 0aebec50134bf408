"""Organic traffic for the ads model, day after day (E-CDCTR, arXiv:2408.16238)."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "EcdctrServed": "served",
        "EcdctrStudent": "student",
    },
)
