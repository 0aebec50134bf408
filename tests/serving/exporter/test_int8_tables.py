"""Served embedding tables of int8 rows."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.raw_rows import (
    ROWS,
    SCHEMA,
    fake_dataset,
    model_scores,
    rank_inputs,
    raw_tensors,
    spread_weights,
)
from tfctr.backbones import DIN, DCNv2
from tfctr.serving import export
from tfctr.serving.exporter.int8_tables import quantized


def test_each_number_is_off_by_half_a_step_of_its_row() -> None:
    table = np.random.default_rng(1).normal(size=(1_000, 16)).astype(np.float32)
    table *= np.geomspace(1e-4, 1e3, 1_000, dtype=np.float32)[:, None]  # rows of any size
    table[7] = 0
    rows, scales = quantized(table)
    assert (rows.dtype, rows.shape, scales.shape) == (np.int8, (1_000, 16), (1_000, 1))
    greatest = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(rows * scales - table) <= greatest / 250).all()
    assert np.abs(rows * scales - table).max() > 0
    assert not rows[7].any()


@pytest.mark.parametrize("backbone", [DCNv2, DIN])
def test_scores_are_those_of_a_model_with_rounded_rows(backbone: type, tmp_path: Path) -> None:
    # Sequences of another length are not those that DIN compares.
    schema = SCHEMA.select([f.name for f in SCHEMA.inputs if f.name != "seen"])
    model = spread_weights(backbone(schema, embedding_dim=8, hidden_units=(8,)))
    before = model_scores(model, ROWS)
    weights = [weight.numpy() for weight in model.weights]
    data = fake_dataset(tmp_path / "v")
    with pytest.raises(ValueError, match="tables: found 'int4'; allowed: float32, int8"):
        export(model, data, tmp_path / "m", tables="int4")
    path = export(model, data, tmp_path / "m", tables="int8")
    np.testing.assert_array_equal(model_scores(model, ROWS), before)  # itself it stays as it is
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, value)

    served = tf.saved_model.load(str(path)).signatures
    found = served["serving_default"](**raw_tensors(ROWS, schema))["scores"]
    assert 0 < np.abs(found - before).max() < 0.01
    assert np.ptp(before) > 0.1
    rows, scales = quantized(model.fields.table.numpy())
    model.fields.table.assign(rows * scales)
    np.testing.assert_allclose(found, model_scores(model, ROWS), atol=1e-6)
    inputs, pairs = rank_inputs(schema, 2, 5)
    expected = model_scores(model, pairs).reshape(2, 5)
    np.testing.assert_allclose(served["rank"](**inputs)["scores"], expected, atol=1e-6)

    checkpoint = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    shapes, dtypes = (
        checkpoint.get_variable_to_shape_map(),
        checkpoint.get_variable_to_dtype_map(),
    )
    shape = list(model.fields.table.shape)
    assert [dtypes[name] for name in shapes if shapes[name] == shape] == [tf.int8]
