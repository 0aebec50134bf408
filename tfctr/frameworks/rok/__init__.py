"""ROK (arXiv:2404.18304): a knowledge base imitates what sample retrieval would return.

In the data's order: a teacher (`tfctr.backbones.RIM`) learns from retrieved rows; a batch job
(`beam_pipelines.hints`) writes what it makes of them for each row; `Imitation` trains a
`KnowledgeBase` to tell that from the row alone; `RokStudent` carries it into any backbone.
"""

from tfctr.frameworks.rok.imitation import Imitating, Imitation
from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
from tfctr.frameworks.rok.student import RokStudent

__all__ = ["Imitating", "Imitation", "KnowledgeBase", "RokStudent"]
