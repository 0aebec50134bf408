"""SRP4CTR: a pre-trained encoder of users' events in any backbone (arXiv:2407.19658)."""

from tfctr.lazy import exports
from tfctr.saving import defer

__getattr__, __all__ = exports(
    __name__,
    {
        "FgBert": "fg_bert",
        "MaskedPartsObjective": "fg_bert",
        "SequenceEncoder": "sequence_encoder",
        "Srp4ctrStudent": "student",
    },
)

defer(f"{__name__}.fg_bert", "FgBert")
defer(f"{__name__}.querying_transformer", "QueryingTransformer")
defer(f"{__name__}.sequence_encoder", "SequenceEncoder")
defer(f"{__name__}.student", "Srp4ctrStudent")
