"""Lets Keras load files whose classes are not imported yet.

After `import tfctr`, `keras.models.load_model(path)` finds every class of tfctr. Keras looks in a
registry, where a class is from its module's import on; until then a `Deferred` stands there, which
imports the module when a file names the class. Nothing here imports Keras or TensorFlow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import wrapt

HOMES: Mapping[str, tuple[str, ...]] = {
    "tfctr.backbones": (
        *("BST", "DCN", "DCNv2", "DIEN", "DIN", "DNN", "FM", "GDCN", "LR", "PNN", "AutoInt"),
        *("DeepFM", "FiBiNET", "FinalMLP", "MaskNet", "WideDeep", "XDeepFM"),
    ),
    "tfctr.layers.attending_block": ("AttendingBlock",),
    "tfctr.layers.augru": ("AUGRU",),
    "tfctr.layers.behaviour_sequence": ("BehaviourSequence",),
    "tfctr.layers.bilinear_fusion": ("BilinearFusion",),
    "tfctr.layers.bilinear_interaction": ("BilinearInteraction",),
    "tfctr.layers.cin": ("CIN",),
    "tfctr.layers.feature_gate": ("FeatureGate",),
    "tfctr.layers.field_embedding": ("FieldEmbedding",),
    "tfctr.layers.flat_dense": ("FlatDense",),
    "tfctr.layers.fm": ("FactorizationMachine",),
    "tfctr.layers.gated_cross": ("GatedCross",),
    "tfctr.layers.historical_fusion": ("HistoricalFusion",),
    "tfctr.layers.interacting": ("InteractingLayer",),
    "tfctr.layers.kernel_product": ("KernelProduct",),
    "tfctr.layers.mask_block": ("MaskBlock",),
    "tfctr.layers.mlp": ("MLP",),
    "tfctr.layers.next_event_loss": ("NextEventLoss",),
    "tfctr.layers.positions": ("Positions",),
    "tfctr.layers.row_attention": ("RowAttention",),
    "tfctr.layers.senet": ("SENET",),
    "tfctr.layers.target_attention": ("TargetAttention",),
    "tfctr.layers.transformer_block": ("TransformerBlock",),
    "tfctr.layers.vector_cross": ("VectorCross",),
    "tfctr.language.prompted_encoder": ("PromptedEncoder",),
    "tfctr.metrics": ("AUC",),
    "tfctr.models.losses": ("LogLoss",),
    "tfctr.optimizers": ("LazyAdagrad", "LazyAdam"),
}


@dataclass(frozen=True)
class Deferred:
    """Stands for a class in Keras' registry until its module is imported."""

    module: str
    name: str

    def from_config(self, config: dict[str, Any]) -> Any:
        return getattr(import_module(self.module), self.name).from_config(config)


def defer(module: str, *names: str, package: str = "tfctr") -> None:
    """Lets Keras import `module` when a file names one of its classes.

    A method calls it in the `__init__` of its folder, for its models and layers.

    Args:
        module: where the classes are registered for Keras.
        names: of the classes.
        package: that they are registered under.
    """

    def register(keras: Any) -> None:
        for name in names:
            # A class that is imported already stays.
            keras.saving.get_custom_objects().setdefault(
                f"{package}>{name}", Deferred(module, name)
            )

    wrapt.register_post_import_hook(register, "keras")  # at once if Keras is there


for _module, _names in HOMES.items():
    defer(_module, *_names)
# Each method's folder defers its own classes.
wrapt.register_post_import_hook(lambda keras: import_module("tfctr.frameworks"), "keras")
