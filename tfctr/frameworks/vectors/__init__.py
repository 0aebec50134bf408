"""Vectors of items or users from elsewhere, beside what the backbone learns of them.

In the data's order: a stage reads the files and writes a table by id; the student adds fields made
of an id's vector.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"VectorsStudent": "student"})
