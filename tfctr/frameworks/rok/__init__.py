"""ROK (arXiv:2404.18304): a knowledge base imitates the result of sample retrieval.

In the data's order: a teacher (`RIM`) learns from retrieved rows; a batch job
(`beam_pipelines.hints`) writes its hint for each row; `Imitation` trains a `KnowledgeBase` to
predict the hint from the row alone; `RokStudent` adds it to any backbone.

In the second form the hints are label statistics of two searches
(`beam_pipelines.neighbour_hints`); `HistoryKnowledge` predicts them from the user's history and the
candidate, and `FieldStudent` adds fields made of its prediction.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "FieldStudent": "field_student",
        "HistoryKnowledge": "history_knowledge",
        "ImitationObjective": "imitation",
        "Imitation": "imitation",
        "KnowledgeBase": "knowledge_base",
        "RIM": "rim",
        "RokStudent": "student",
    },
)
