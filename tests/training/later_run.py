"""A run that goes on from another one's model, with the log of another day."""

from typing import Any

import numpy as np

from tfctr.data import Dataset
from tfctr.data.vocabulary import Vocabulary
from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.schema import FIRST_TOKEN_ID
from tfctr.stages import Run

LOG = {"format": "world", "users": 90, "items": 70, "events": 3_000, "seed": 4}
TRAINING = {
    "batch_size": 512,
    "epochs": 1,
    "optimizer": {"learning_rate": 1e-30},
}  # as good as none


def rows_by_token(run: Run, name: str, dtype: str, part: str = "") -> dict[Any, np.ndarray]:
    """What the model, or a part of it, has for each token of a feature."""
    data = Dataset.open(run.data_folder)
    path = data.vocabulary_file(data.schema[name].vocabulary)
    vocabulary = Vocabulary.open(path, dtype)
    model = run.load_model()
    layers = (getattr(model, part) if part else model)._flatten_layers()
    fields = next(layer for layer in layers if isinstance(layer, FieldEmbedding))
    vectors = np.asarray(fields.rows(name, np.arange(FIRST_TOKEN_ID, vocabulary.size)))
    return dict(zip(vocabulary.tokens.to_pylist(), vectors, strict=True))


def assert_carried_on(run: Run, part: str, feature: str) -> None:
    """A part of the earlier model is in this one, whose training changed nothing."""
    assert run.earlier is not None
    models = [of.load_model() for of in (run.earlier, run)]
    old, new = (getattr(model, part) for model in models)
    for ours, theirs in zip(new.weights, old.weights, strict=True):
        if not ours.path.endswith("table"):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    before, after = (rows_by_token(of, feature, "int", part) for of in (run.earlier, run))
    assert [*before] != [*after]
    assert len(before.keys() & after.keys()) > 10
    for token in before.keys() & after.keys():
        np.testing.assert_allclose(after[token], before[token], atol=1e-6)
