"""FuxiCTR's DCNv2 or DIN on a dataset's rows: BACKBONE ROWS.npz SEED OUT.npz DROPOUT RATE L2.

With its own `fit`: early stopping by validation AUC, the learning rate cut on a plateau, the best
weights. The driver gives dropout, learning rate and L2 on the embeddings. OUT holds logits of the
validation and test rows. It runs in an environment of its own, without TensorFlow.
"""

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import (
    CrossNetV2,
    DIN_Attention,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel

BATCH = 4096
EPOCHS = 20
DIM = 16
HIDDEN = [256, 128, 64]


class Fitted(BaseModel):
    """Knows the epoch with the best weights."""

    def __init__(self, feature_map: FeatureMap, folder: str, l2: float) -> None:
        super().__init__(
            feature_map, verbose=0, model_root=folder, metrics=["AUC"], embedding_regularizer=l2
        )
        self.best_epoch = 0

    def save_weights(self, checkpoint: str) -> None:
        Path(checkpoint).parent.mkdir(exist_ok=True)
        self.best_epoch = self._epoch_index + 1
        super().save_weights(checkpoint)


class DCNv2(Fitted):
    """The one for fields, composed of the same layers as in FuxiCTR's repository (`model_structure:
    parallel`); its package has only the one for sequences."""

    def __init__(
        self,
        feature_map: FeatureMap,
        folder: str,
        dropout: float,
        rate: float,
        l2: float,
        hidden_units: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__(feature_map, folder, l2)
        width = feature_map.sum_emb_out_dim()
        self.embedding_layer = FeatureEmbedding(feature_map, DIM)
        self.crossnet = CrossNetV2(width, 3)
        self.parallel_dnn = MLP_Block(width, hidden_units=[*hidden_units], dropout_rates=dropout)
        self.fc = torch.nn.Linear(width + hidden_units[-1], 1)
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crossnet(x), self.parallel_dnn(x)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(both))}


class DIN(Fitted):
    """That of FuxiCTR's repository: the candidate attends to its histories side by side. A history
    without a field of the candidate, e.g. the grades, is beside the item itself."""

    def __init__(
        self, feature_map: FeatureMap, folder: str, dropout: float, rate: float, l2: float
    ) -> None:
        super().__init__(feature_map, folder, l2)
        specs = feature_map.features
        self.histories = [name for name, spec in specs.items() if spec.get("is_history")]
        shared = [specs[name].get("share_embedding") for name in self.histories]
        self.targets = [name or shared[0] for name in shared]
        self.embedding_layer = FeatureEmbeddingDict(feature_map, DIM)
        self.attention = DIN_Attention(DIM * len(self.histories), [64], hidden_activations="Dice")
        width = DIM * len(specs)
        self.dnn = MLP_Block(width, output_dim=1, hidden_units=HIDDEN, dropout_rates=dropout)
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        given = self.get_inputs(inputs)
        found = self.embedding_layer(given)
        target = torch.cat([found[name] for name in self.targets], dim=-1)
        events = torch.cat([found[name] for name in self.histories], dim=-1)
        pooled = self.attention(target, events, given[self.histories[0]] != 0)
        others = [vector for name, vector in found.items() if name not in self.histories]
        logit = self.dnn(torch.cat([*others, pooled], dim=-1))
        return {"y_pred": self.output_activation(logit)}


class Batches:
    """Batches of a split; those of the training rows in another order each time."""

    def __init__(self, rows: Any, split: str, names: list[str], shuffle: bool) -> None:
        self.columns = {
            name: torch.from_numpy(rows[f"{split}_{name}"].astype(kind))
            for name, kind in [*((name, "int64") for name in names), ("label", "float32")]
        }
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self.columns["label"]) // BATCH)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        n = len(self.columns["label"])
        order = torch.randperm(n) if self.shuffle else torch.arange(n)
        for places in order.split(BATCH):
            yield {name: column[places] for name, column in self.columns.items()}


def main(backbone: str, path: str, seed: str, out: str, dropout: str, rate: str, l2: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(int(seed))
    rows = np.load(path)
    names = [name.removeprefix("size_") for name in rows.files if name.startswith("size_")]
    shared = {name: str(rows[f"shares_{name}"]) for name in names if f"shares_{name}" in rows}
    names.sort(key=shared.__contains__)  # behind those whose vectors they share
    with tempfile.TemporaryDirectory() as folder:
        feature_map = FeatureMap("rows", folder)
        feature_map.default_emb_dim = DIM
        feature_map.labels = ["label"]
        for name in names:
            spec = {"source": "", "vocab_size": int(rows[f"size_{name}"]), "padding_idx": 0}
            spec |= {"type": "categorical"}
            if rows[f"train_{name}"].ndim == 2:
                spec |= {"type": "sequence", "max_len": rows[f"train_{name}"].shape[1]}
                spec |= {"is_history": name in shared}
            if spec.get("is_history") is False:
                spec |= {"feature_encoder": "layers.MaskedAveragePooling()"}
            if shared.get(name, name) != name:
                spec |= {"share_embedding": shared[name]}
            feature_map.features[name] = spec
        feature_map.num_fields = feature_map.get_num_fields()
        feature_map.set_column_index()
        create = {"dcn_v2": DCNv2, "din": DIN}[backbone]
        model = create(feature_map, folder, float(dropout), float(rate), float(l2))
        parts = {
            split: Batches(rows, split, names, shuffle=split == "train")
            for split in ("train", "valid", "test")
        }
        model.fit(parts["train"], epochs=EPOCHS, validation_data=parts["valid"])
        logits = {}
        for split in ("valid", "test"):
            p = np.clip(model.predict(parts[split]), 1e-7, 1 - 1e-7)
            logits[split] = np.log(p / (1 - p))
    parameters = sum(p.numel() for p in model.parameters())
    np.savez(out, best_epoch=model.best_epoch, parameters=parameters, **logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
