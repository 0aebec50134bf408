"""Keras layers, one a file."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "AUGRU": "augru",
        "AttendingBlock": "attending_block",
        "BehaviourSequence": "behaviour_sequence",
        "BilinearFusion": "bilinear_fusion",
        "BilinearInteraction": "bilinear_interaction",
        "CIN": "cin",
        "FactorizationMachine": "fm",
        "FeatureGate": "feature_gate",
        "FieldEmbedding": "field_embedding",
        "FlatDense": "flat_dense",
        "GatedCross": "gated_cross",
        "HistoricalFusion": "historical_fusion",
        "InteractingLayer": "interacting",
        "KernelProduct": "kernel_product",
        "MLP": "mlp",
        "MaskBlock": "mask_block",
        "NextEventLoss": "next_event_loss",
        "Positions": "positions",
        "RowAttention": "row_attention",
        "SENET": "senet",
        "TargetAttention": "target_attention",
        "TransformerBlock": "transformer_block",
        "VectorCross": "vector_cross",
    },
)
