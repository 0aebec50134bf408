"""FuxiCTR's DCNv2 on the rows of `benchmarks.movielens`.

    python -m benchmarks.movielens.fuxictr_model ROWS.npz SEED OUT.npz DROPOUT RATE L2

With its own `fit`: early stopping by validation AUC, the learning rate cut on a plateau, the best
weights. The same widths and batch as `configs/movielens-1m/dcnv2.yaml`; the driver gives its tuned
dropout, learning rate and L2 on the embeddings. OUT holds logits of the validation and test rows.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel

BATCH = 4096
EPOCHS = 20


class DCNv2(BaseModel):
    """The parallel one of FuxiCTR's repository; its package has only the one for sequences."""

    def __init__(
        self, feature_map: FeatureMap, folder: str, dropout: float, rate: float, l2: float
    ) -> None:
        super().__init__(
            feature_map,
            verbose=0,
            model_root=folder,
            metrics=["AUC"],
            embedding_regularizer=l2,
        )
        width = feature_map.sum_emb_out_dim()
        self.embedding_layer = FeatureEmbedding(feature_map, 16)
        self.crossnet = CrossNetV2(width, 3)
        self.parallel_dnn = MLP_Block(width, hidden_units=[256, 128, 64], dropout_rates=dropout)
        self.fc = torch.nn.Linear(width + 64, 1)
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()
        self.best_epoch = 0

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crossnet(x), self.parallel_dnn(x)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(both))}

    def save_weights(self, checkpoint: str) -> None:
        Path(checkpoint).parent.mkdir(exist_ok=True)
        self.best_epoch = self._epoch_index + 1
        super().save_weights(checkpoint)


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


def main(path: str, seed: str, out: str, dropout: str, rate: str, l2: str) -> None:
    torch.manual_seed(int(seed))
    rows = np.load(path)
    names = [name.removeprefix("size_") for name in rows.files if name.startswith("size_")]
    with tempfile.TemporaryDirectory() as folder:
        feature_map = FeatureMap("movielens", folder)
        feature_map.default_emb_dim = 16
        feature_map.labels = ["label"]
        for name in names:
            spec = {"source": "", "vocab_size": int(rows[f"size_{name}"]), "padding_idx": 0}
            if rows[f"train_{name}"].ndim == 2:
                spec |= {
                    "type": "sequence",
                    "max_len": rows[f"train_{name}"].shape[1],
                    "feature_encoder": "layers.MaskedAveragePooling()",
                }
            else:
                spec |= {"type": "categorical"}
            feature_map.features[name] = spec
        feature_map.num_fields = feature_map.get_num_fields()
        feature_map.set_column_index()
        model = DCNv2(feature_map, folder, float(dropout), float(rate), float(l2))
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
