"""SRP4CTR: a pre-trained encoder of users' events in any backbone (arXiv:2407.19658)."""

from tfctr.frameworks.srp4ctr.fg_bert import FgBert, GuessingParts
from tfctr.frameworks.srp4ctr.sequence_encoder import SequenceEncoder
from tfctr.frameworks.srp4ctr.student import Srp4ctrStudent

__all__ = ["FgBert", "GuessingParts", "SequenceEncoder", "Srp4ctrStudent"]
