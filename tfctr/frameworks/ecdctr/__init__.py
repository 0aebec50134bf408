"""Organic traffic for the ads model, day after day (E-CDCTR, arXiv:2408.16238)."""

from tfctr.frameworks.ecdctr.served import ServedModel
from tfctr.frameworks.ecdctr.student import EcdctrStudent

__all__ = ["EcdctrStudent", "ServedModel"]
