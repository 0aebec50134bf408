"""AutoInt, FiBiNET, FinalMLP, GDCN, MaskNet and their layers against plain NumPy loops."""

from typing import Any

import numpy as np
import pytest

from tests.layers.test_layers import INPUTS, SCHEMA
from tfctr import backbones
from tfctr.layers.bilinear_fusion import BilinearFusion
from tfctr.layers.bilinear_interaction import BilinearInteraction
from tfctr.layers.feature_gate import FeatureGate
from tfctr.layers.gated_cross import GatedCross
from tfctr.layers.interacting import InteractingLayer
from tfctr.layers.mask_block import MaskBlock
from tfctr.layers.senet import SENET

SMALL: dict[str, Any] = {"embedding_dim": 4, "hidden_units": [8, 4]}
UNITS = 6  # of a mask block


def make(name: str, **arguments: Any) -> tuple[backbones.Backbone, np.ndarray]:
    """A model, every weight of which matters, and its vectors `[3, 7, D]`."""
    model = backbones.create(name, SCHEMA, **SMALL | arguments)
    model.build()
    spread(model)
    return model, np.array(model.embed(INPUTS))


def spread(layer: Any) -> None:
    generator = np.random.default_rng(5)
    for weight in layer.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))


def weights(layer: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in layer.weights]


def fields(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normed(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-6) * gain + bias


def dense(layer: Any, x: np.ndarray) -> np.ndarray:
    for kernel, bias in zip(weights(layer)[::2], weights(layer)[1::2], strict=True):
        x = relu(x @ kernel + bias)
    return x


def attend(layer: InteractingLayer, x: np.ndarray) -> np.ndarray:
    """One row `[F, D]`, a head and a field at a time."""
    kernels = {name: np.array(getattr(layer, name).kernel) for name in ("query", "key", "value")}
    out = x @ np.array(layer.residual.kernel)
    for head in range(layer.num_heads):
        mine = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
        q, k, v = (x @ kernel[:, mine] for kernel in kernels.values())
        for i in range(len(x)):
            scores = np.exp([q[i] @ k[j] for j in range(len(x))])
            out[i, mine] += sum(scores[j] / scores.sum() * v[j] for j in range(len(x)))
    return relu(out)


def reweight(layer: SENET, x: np.ndarray) -> np.ndarray:
    squeeze, excite, bias = weights(layer)
    return relu(relu(x.mean(1) @ squeeze) @ excite + bias)[:, None] * x


def products(layer: BilinearInteraction, x: np.ndarray) -> np.ndarray:
    """One row `[F, D]`, a pair at a time."""
    (kernel,) = weights(layer)
    out: list[np.ndarray] = []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            matrix = {"all": 0, "each": i, "interaction": len(out)}[layer.bilinear]
            out.append((x[i] @ kernel[:, matrix]) * x[j])
    return np.stack(out)


def mask_block(layer: MaskBlock, x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """One row."""
    inside = dense(layer.aggregate, x)
    kernel, bias = weights(layer.project)
    mask = inside @ kernel + bias
    return relu(normed((mask * hidden) @ weights(layer.dense)[0], *weights(layer.norm)))


def gated_cross(layer: GatedCross, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    kernel, bias = weights(layer.cross)
    return x0 * (x @ kernel + bias) * sigmoid(x @ weights(layer.gate)[0]) + x


@pytest.mark.parametrize(("num_heads", "head_dim"), [(1, 5), (3, 2)])
def test_interacting_layer_mixes_fields_within_a_head(num_heads: int, head_dim: int) -> None:
    x = fields(3, 6, 4)
    layer = InteractingLayer(num_heads, head_dim)
    layer(x)
    spread(layer)
    np.testing.assert_allclose(layer(x), [attend(layer, row) for row in x], atol=1e-5)


def test_senet_weighs_each_field_by_all() -> None:
    x = fields(3, 6, 4)
    layer = SENET(reduction_ratio=2)
    np.testing.assert_allclose(layer(x * 1e-3), x * 1e-3, rtol=0.01)
    spread(layer)
    assert layer.squeeze.units == 3
    found = np.array(layer(x))
    assert found.any()
    np.testing.assert_allclose(found, [reweight(layer, row) for row in x], atol=1e-5)


@pytest.mark.parametrize(("bilinear", "matrices"), [("all", 1), ("each", 5), ("interaction", 15)])
def test_bilinear_interaction_is_a_product_a_pair(bilinear: str, matrices: int) -> None:
    x = fields(3, 6, 4)
    layer = BilinearInteraction(bilinear)
    found = layer(x)
    assert layer.kernel.shape == (4, matrices, 4)
    np.testing.assert_allclose(found, [products(layer, row) for row in x], atol=1e-5)


@pytest.mark.parametrize("bilinear", ["all", "each", "interaction"])
def test_bilinear_matrices_start_as_large_whatever_their_number(bilinear: str) -> None:
    layer = BilinearInteraction(bilinear)
    layer.build((None, 12, 16))
    assert np.std(layer.kernel) == pytest.approx(0.25, rel=0.1)


def test_mask_block_masks_normalises_and_rectifies() -> None:
    x, hidden = fields(3, 5), fields(3, 7)
    layer = MaskBlock(UNITS, reduction_ratio=1.5)
    layer(x, hidden)
    spread(layer)
    assert layer.aggregate.units == 10
    expected = [mask_block(layer, *row) for row in zip(x, hidden, strict=True)]
    np.testing.assert_allclose(layer(x, hidden), expected, atol=1e-4)


def test_feature_gate_starts_open_and_follows_its_context() -> None:
    x, context = fields(3, 5), fields(3, 4)
    constant = FeatureGate()
    np.testing.assert_allclose(constant(x), x, atol=1e-6)
    spread(constant)
    np.testing.assert_allclose(constant(x), 2 * sigmoid(weights(constant)[0]) * x, atol=1e-5)
    layer = FeatureGate(units=(6,))
    layer(x, context)
    spread(layer)
    gate = dense(layer.mlp, context) @ np.array(layer.dense.kernel) + np.array(layer.bias)
    np.testing.assert_allclose(layer(x, context), 2 * sigmoid(gate) * x, atol=1e-5)


def test_a_weighted_sum_of_bilinear_fusion_is_a_bilinear_form_a_head() -> None:
    x, y, v = fields(3, 6), fields(3, 4), fields(4)
    layer = BilinearFusion(num_heads=2)
    found = np.array(layer(x, y)) @ v
    kernel = np.array(layer.kernel)
    for row in range(3):
        expected = 0.0
        for head in range(2):
            matrix = kernel[head] @ np.diag(v[2 * head : 2 * head + 2])
            expected += x[row, 3 * head : 3 * head + 3] @ matrix @ y[row, 2 * head : 2 * head + 2]
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_gated_cross_gates_the_product_and_keeps_the_input() -> None:
    x0, x = fields(3, 5), fields(3, 5)[::-1]
    layer = GatedCross()
    layer(x0, x)
    spread(layer)
    np.testing.assert_allclose(layer(x0, x), gated_cross(layer, x0, x), atol=1e-5)


@pytest.mark.parametrize("hidden_units", [[8, 4], []])
def test_autoint_against_numpy(hidden_units: list[int]) -> None:
    arguments = {"num_attention_layers": 2, "num_heads": 3, "attention_dim": 2}
    model, e = make("autoint", hidden_units=hidden_units, **arguments)
    q = []
    for row in e:
        parts = [attend(model.attention[1], attend(model.attention[0], row)).ravel()]
        if hidden_units:
            parts.append(dense(model.deep, row.ravel()))
        q.append(np.concatenate(parts))
    np.testing.assert_allclose(model.represent(e), q, atol=1e-4)


def test_fibinet_against_numpy() -> None:
    model, e = make("fibinet", bilinear="each")
    q = []
    for row in e:
        x, first_order = row[:, :-1], row[:, -1].sum()
        plain = products(model.pairs, x)
        weighted = products(model.weighted_pairs, reweight(model.senet, x))
        deep = dense(model.deep, np.concatenate([plain.ravel(), weighted.ravel()]))
        q.append([*deep, first_order])
    np.testing.assert_allclose(model.represent(e), q, atol=1e-4)


@pytest.mark.parametrize("structure", ["parallel", "serial"])
def test_masknet_against_numpy(structure: str) -> None:
    model, e = make("masknet", structure=structure, num_blocks=2, block_units=UNITS)
    q = []
    for row in e:
        x = row.ravel()
        n = np.concatenate([normed(field, *weights(model.norm)) for field in row])
        first, second = model.blocks
        if structure == "parallel":
            h = np.concatenate([mask_block(first, x, n), mask_block(second, x, n)])
        else:
            h = mask_block(second, x, mask_block(first, x, n))
        q.append(dense(model.deep, h))
    np.testing.assert_allclose(model.represent(e), q, atol=1e-4)


def test_logits_of_finalmlp_are_the_papers_fusion_of_gated_towers() -> None:
    model, e = make(
        "finalmlp",
        second_hidden_units=[6],
        num_heads=2,
        gate_1_fields=["item", "user"],
        gate_units=[5],
    )
    v, bias = weights(model.head)
    kernel = np.array(model.fusion.kernel)
    logits = np.array(model.predict_logits(model.represent(e)))
    for row, logit in zip(e, logits, strict=True):
        context = dense(model.gate_1.mlp, np.concatenate([row[4], row[1]]))
        gate_1 = context @ np.array(model.gate_1.dense.kernel) + np.array(model.gate_1.bias)
        gate_2 = np.array(model.gate_2.bias)
        x = dense(model.deep_1, 2 * sigmoid(gate_1) * row.ravel())
        y = dense(model.deep_2, 2 * sigmoid(gate_2) * row.ravel())
        expected = bias[0] + x @ v[:4, 0] + y @ v[4:10, 0]
        for head in range(2):
            matrix = kernel[head] @ np.diag(v[10 + 3 * head : 13 + 3 * head, 0])
            expected += x[2 * head : 2 * head + 2] @ matrix @ y[3 * head : 3 * head + 3]
        assert logit == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_gdcn_against_numpy(structure: str) -> None:
    model, e = make("gdcn", structure=structure, num_cross_layers=2)
    x0 = e.reshape(3, -1)
    x = gated_cross(model.crosses[1], x0, gated_cross(model.crosses[0], x0, x0))
    if structure == "parallel":
        q = np.concatenate([x, dense(model.deep, x0)], axis=1)
    else:
        q = dense(model.deep, x)
    np.testing.assert_allclose(model.represent(e), q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments", "width"),
    [
        ("autoint", {"num_heads": 2, "attention_dim": 3}, 9 * 6 + 4),
        ("fibinet", {}, 4 + 1),
        ("finalmlp", {"gate_2_fields": ["item"]}, 3 * 4),
        ("gdcn", {}, 9 * 4 + 4),
        ("masknet", {}, 4),
    ],
)
def test_a_method_may_feed_further_fields(name: str, arguments: Any, width: int) -> None:
    model = backbones.create(name, SCHEMA, **SMALL | arguments)
    q = model.represent(np.ones((3, 9, model.field_dim), np.float32))
    assert q.shape == (3, width)
    assert model.predict_logits(q).shape == (3,)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fibinet", {"bilinear": "every"}, "bilinear: found 'every'; allowed: all, each, inter"),
        ("masknet", {"structure": "stack"}, "structure: found 'stack'; allowed: parallel, serial"),
        ("masknet", {"num_blocks": 0}, "num_blocks: found 0; allowed: 1 or more"),
        ("gdcn", {"structure": "serial"}, "structure: found 'serial'; allowed: parallel, stacked"),
        ("finalmlp", {"gate_1_fields": ["title"]}, "gate_1_fields: found 'title'; allowed: age, "),
        ("finalmlp", {"num_heads": 3}, "num_heads: found 3; allowed: divisors of 4 and 4"),
    ],
)
def test_an_argument_that_cannot_be_is_named(name: str, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbones.create(name, SCHEMA, **SMALL | arguments).build()


def test_fibinet_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="need at least 2 fields, found 1"):
        backbones.create("fibinet", SCHEMA.select(["item"]), **SMALL).build()
