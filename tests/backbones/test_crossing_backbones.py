"""Backbones that cross fields, and their layers: against plain NumPy loops."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.layers.test_layers import INPUTS, SCHEMA
from tfctr import backbones
from tfctr.layers.cin import CIN
from tfctr.layers.kernel_product import KernelProduct
from tfctr.layers.vector_cross import VectorCross

PAIRS = list(combinations(range(7), 2))
ROWS = np.random.default_rng(0).normal(size=(3, 7, 4)).astype(np.float32)


def make(name: str, **arguments: Any) -> tuple[backbones.Backbone, np.ndarray]:
    """A model of vectors that are not small, and its embeddings `[3, 7, D]`."""
    if name != "fm":
        arguments["hidden_units"] = [8, 4]
    model = backbones.create(name, SCHEMA, embedding_dim=4, **arguments)
    model.fields.stddev = 0.5
    model.build()
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(np.linspace(-0.3, 0.4, weight.shape[0]))
    return model, np.array(model.embed(INPUTS))


def inner(vectors: np.ndarray) -> np.ndarray:
    return np.array([[v[i] @ v[j] for i, j in PAIRS] for v in vectors])


def kernel_products(vectors: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.array([[v[i] @ kernel[p] @ v[j] for p, (i, j) in enumerate(PAIRS)] for v in vectors])


def cin(vectors: np.ndarray, kernels: list[np.ndarray]) -> np.ndarray:
    rows = []
    for x0 in vectors:
        x, sums = x0, []
        for kernel in kernels:
            after = np.zeros((kernel.shape[2], x0.shape[1]))
            for h, i, j in np.ndindex(kernel.shape[2], len(x), len(x0)):
                after[h] += kernel[i, j, h] * x[i] * x0[j]
            x = after
            sums.extend(x.sum(1))
        rows.append(sums)
    return np.array(rows)


def arrays(layer: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in layer.weights]


def test_kernel_product_is_a_weighted_sum_of_each_outer_product() -> None:
    layer = KernelProduct()
    found = layer(ROWS)
    (kernel,) = arrays(layer)
    for p, (i, j) in enumerate(PAIRS):
        outer = [np.sum(kernel[p] * np.outer(row[i], row[j])) for row in ROWS]
        np.testing.assert_allclose(found[:, p], outer, atol=1e-5)


@pytest.mark.parametrize("units", [(5,), (5, 3), (2, 3, 4)])
def test_cin_is_the_sum_over_all_pairs_of_vectors(units: tuple[int, ...]) -> None:
    layer = CIN(units)
    found = layer(ROWS)
    assert found.shape == (3, sum(units))
    np.testing.assert_allclose(found, cin(ROWS, arrays(layer)), atol=1e-5)
    assert CIN.from_config(layer.get_config()).units == units


def test_vector_cross_is_a_scaled_input_and_itself() -> None:
    x0, x = np.random.default_rng(1).normal(size=(2, 3, 6)).astype(np.float32)
    layer = VectorCross()
    layer(x0, x)
    layer.bias.assign(np.arange(6.0))
    w, b = arrays(layer)
    expected = [x0[r] * (x[r] @ w[:, 0]) + b + x[r] for r in range(3)]
    np.testing.assert_allclose(layer(x0, x), expected, atol=1e-5)


def test_fm_is_pairs_and_weights() -> None:
    model, e = make("fm")
    q = np.stack([inner(e[..., :-1]).sum(1), e[..., -1].sum(1)], axis=1)
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


def test_wide_deep_is_a_tower_beside_weights() -> None:
    model, e = make("wide_deep")
    deep = np.array(model.deep(e[..., :-1].reshape(3, -1)))
    q = np.concatenate([deep, e[..., -1].sum(1, keepdims=True)], axis=1)
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


@pytest.mark.parametrize("products", ["inner", "outer", "both"])
def test_pnn_is_a_tower_over_fields_and_products(products: str) -> None:
    model, e = make("pnn", products=products)
    parts = [e.reshape(3, -1)]
    if products != "outer":  # `DotInteraction` has the pairs in the order (1, 0), (2, 0), (2, 1)
        order = sorted(range(len(PAIRS)), key=lambda p: PAIRS[p][::-1])
        parts.append(inner(e)[:, order])
    if products != "inner":
        parts.append(kernel_products(e, *arrays(model.outer)))
    q = np.array(model.deep(np.concatenate(parts, axis=1)))
    assert q.any()
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


def test_dcn_is_crosses_beside_a_tower() -> None:
    model, e = make("dcn", num_cross_layers=2)
    x0 = e.reshape(3, -1)
    x = x0
    for cross in model.crosses:
        w, b = arrays(cross)
        x = x0 * (x @ w) + b + x
    q = np.concatenate([x, model.deep(x0)], axis=1)
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


def test_dcn_v2_of_low_rank_stacked() -> None:
    model, e = make("dcn_v2", num_cross_layers=2, structure="stacked", rank=3)
    x0 = e.reshape(3, -1)
    x = x0
    for cross in model.crosses:
        down, up, bias = sorted(arrays(cross), key=lambda w: (-w.ndim, w.shape[-1]))
        assert (down.shape, up.shape) == ((28, 3), (3, 28))
        x = x0 * (x @ down @ up + bias) + x
    q = np.array(model.deep(x))
    assert q.any()
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


def test_xdeepfm_is_a_tower_crosses_and_weights() -> None:
    model, e = make("xdeepfm", cin_units=[5, 3])
    deep = np.array(model.deep(e[..., :-1].reshape(3, -1)))
    crosses = cin(e[..., :-1], arrays(model.cin))
    q = np.concatenate([deep, crosses, e[..., -1].sum(1, keepdims=True)], axis=1)
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pnn", {"products": "inner"}),
        ("pnn", {"products": "outer"}),
        ("dcn_v2", {"structure": "stacked"}),
        ("dcn_v2", {"rank": 2}),
    ],
)
def test_a_keras_file_keeps_every_choice(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = make(name, **arguments)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))


def test_further_fields_may_be_fed_when_a_model_is_built() -> None:
    model = backbones.create("pnn", SCHEMA, embedding_dim=4, products="both", hidden_units=[8])
    assert model.represent(np.ones((2, 9, 4), np.float32)).shape == (2, 8)
    assert model.outer.kernel.shape == (36, 4, 4)


@pytest.mark.parametrize(
    ("make_it", "text"),
    [
        (
            lambda: backbones.create("pnn", SCHEMA, products="cross"),
            "products: found 'cross'; allowed: inner, outer, both",
        ),
        (
            lambda: backbones.create("dcn_v2", SCHEMA, structure="serial"),
            "structure: found 'serial'; allowed: parallel, stacked",
        ),
        (lambda: backbones.create("pnn", SCHEMA.select(["item"])), "pnn: found 1 field"),
        (lambda: backbones.create("xdeepfm", SCHEMA, cin_units=[]), "CIN units: found none"),
    ],
)
def test_what_is_not_allowed_is_named(make_it: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_it()
