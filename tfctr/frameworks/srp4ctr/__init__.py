"""SRP4CTR: a pre-trained encoder of users' events in any backbone (arXiv:2407.19658)."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "FgBert": "fg_bert",
        "MaskedPartsObjective": "fg_bert",
        "SequenceEncoder": "sequence_encoder",
        "Srp4ctrStudent": "student",
    },
)
