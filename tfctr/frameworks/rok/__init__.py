"""ROK (arXiv:2404.18304): a knowledge base imitates the result of sample retrieval.

In the data's order: a teacher (`RIM`) learns from retrieved rows; a batch job
(`beam_pipelines.hints`) writes its hint for each row; `Imitation` trains a `KnowledgeBase` to
predict the hint from the row alone; `RokStudent` adds it to any backbone.
"""

from tfctr.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "ImitationObjective": "imitation",
        "Imitation": "imitation",
        "KnowledgeBase": "knowledge_base",
        "RIM": "rim",
        "RokStudent": "student",
    },
)
