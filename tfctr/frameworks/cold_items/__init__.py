"""Items without training rows: an embedding made of what is known of them.

In the data's order: a stage counts the training rows of each item, another one reads vectors of
items from files; the student makes embeddings of both vectors and attributes, and learns to make
them like those that it has trained.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"ColdItemsStudent": "student", "contrast": "alignment", "regression": "alignment"}
)
