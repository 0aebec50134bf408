"""ROK (arXiv:2404.18304): a knowledge base imitates what sample retrieval would return.

In the data's order: a teacher (`RIM`) learns from retrieved rows; a batch job
(`beam_pipelines.hints`) writes what it makes of them for each row; `Imitation` trains a
`KnowledgeBase` to tell that from the row alone; `RokStudent` carries it into any backbone.
"""

from tfctr.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Imitating": "imitation",
        "Imitation": "imitation",
        "KnowledgeBase": "knowledge_base",
        "RIM": "rim",
        "RokStudent": "student",
    },
)
