"""Starts a model from the weights of another one."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.schema import Numeric, Schema


def start_from(model: Any, pretrained: Any) -> None:
    """Copies the weights of a pretrained backbone, without its head.

    Raises:
        ValueError: the two differ in class or arguments.
    """
    own = {id(weight) for weight in model.head.weights}
    if [w.shape for w in model.weights] != [w.shape for w in pretrained.weights]:
        raise ValueError(
            f"`pretrained` should be a {type(model).__name__} with the same arguments. Received: "
            f"{type(pretrained).__name__}"
        )
    for weight, source in zip(model.weights, pretrained.weights, strict=True):
        if id(weight) not in own:
            weight.assign(np.asarray(ops.convert_to_numpy(source)))


def carry_on(
    model: Any,
    earlier: Any,
    places: Mapping[str, np.ndarray] | None = None,
    without: Sequence[Any] = (),
) -> None:
    """Copies all learned weights of an earlier model, whose vocabularies may differ.

    Embeddings are matched by token. New tokens keep their initial rows. Numbers must be read by the
    same statistics, since a weight of scaled numbers means nothing on another scale.

    Args:
        model: built.
        earlier: of the same class and arguments; its vocabularies may differ.
        places: for each owner of rows in the `tables`, int `[ids]`: the new id of each earlier id,
            -1 for none (`Vocabulary.places_in`). Without it ids are the same, and vocabularies may
            only have grown.
        without: weights of `model` that are not copied. Defaults to none but those that hold data.

    Raises:
        ValueError: class, arguments, or statistics of numbers differ; without `places`, a
            vocabulary has shrunk.
    """
    own, others = tables(model), tables(earlier)
    names = [[w.path.rpartition("/")[2] for w in of.weights] for of in (model, earlier)]
    if names[0] != names[1] or len(own) != len(others):
        raise ValueError(
            f"`earlier` should be a {type(model).__name__} with the same arguments. Received: "
            f"{type(earlier).__name__} with {len(names[1])} weights; this model has {len(names[0])}"
        )
    for layer, before in zip(*(embeddings(of) for of in (model, earlier)), strict=True):
        _check_numbers(layer.schema, before.schema)
    here, there = ({id(layer.table): layer for layer in of} for of in (own, others))
    data = {id(variable) for variable in (*model.data_variables, *without)}
    learned = [
        (weight, source)
        for weight, source in zip(model.weights, earlier.weights, strict=True)
        if id(weight) not in data
    ]
    found = []
    for weight, source in learned:
        values = np.asarray(ops.convert_to_numpy(source))
        if id(weight) in here:
            values = _moved(here[id(weight)], there[id(source)], weight, values, places)
        if values.shape != tuple(weight.shape):
            raise ValueError(
                f"{weight.path} is {list(weight.shape)}, in the earlier model {list(values.shape)}"
            )
        found.append(values)
    for (weight, _), values in zip(learned, found, strict=True):  # all of it, or nothing
        weight.assign(values)


def reset_statistics(model: Any) -> None:
    """Resets every batch normalisation, for activations of another domain."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.ones(layer.gamma.shape))
            layer.beta.assign(np.zeros(layer.beta.shape))
            layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
            layer.moving_variance.assign(np.ones(layer.moving_variance.shape))


def tables(model: Any) -> list[FieldEmbedding]:
    """The layers of a model with an embedding table."""
    return [layer for layer in embeddings(model) if layer.num_rows]


def embeddings(model: Any) -> list[FieldEmbedding]:
    """The layers of a model that embed fields; some have numbers only, and no table."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, FieldEmbedding)]


def _check_numbers(own: Schema, earlier: Schema) -> None:
    ours, theirs = (
        {f.name: _reading(f) for f in of.inputs if isinstance(f, Numeric)} for of in (own, earlier)
    )
    if [*ours] != [*theirs]:
        raise ValueError(
            f"the earlier model reads the numbers {', '.join(theirs) or 'of no feature'}, this one "
            f"{', '.join(ours) or 'of none'}"
        )
    for name in ours:
        if ours[name] != theirs[name]:
            raise ValueError(
                f"feature {name!r} is read by {theirs[name]} in the earlier model, by {ours[name]} "
                "in this one"
            )


def _reading(feature: Numeric) -> str:
    """How a model reads a feature's numbers."""
    if feature.transform == "bucketize":
        return f"{feature.transform} {feature.boundaries}"
    center, scale = feature.center_and_scale
    return f"{feature.transform} (x - {center}) / {scale}"


def _moved(
    layer: FieldEmbedding,
    earlier: FieldEmbedding,
    weight: Any,
    rows: np.ndarray,
    places: Mapping[str, np.ndarray] | None,
) -> np.ndarray:
    """The table of `layer`, with the rows of the earlier table that have a place in it."""
    values = np.array(ops.convert_to_numpy(weight))
    if [*layer.offsets] != [*earlier.offsets]:
        raise ValueError(
            f"the earlier model has rows of {', '.join(earlier.offsets)}, this one of "
            f"{', '.join(layer.offsets)}"
        )
    if values.shape[1] != rows.shape[1]:
        raise ValueError(
            f"the earlier model's rows are {rows.shape[1]} wide, not {values.shape[1]}"
        )
    for owner, (first, size) in blocks(layer).items():
        start, had = blocks(earlier)[owner]
        if places is not None and owner in places:
            kept = np.flatnonzero(places[owner] >= 0)
            values[first + places[owner][kept]] = rows[start + kept]
            continue
        if had > size:
            raise ValueError(
                f"vocabulary {owner!r} shrank from {had:,} ids to {size:,}; ids would stand for "
                "other tokens"
            )
        values[first : first + had] = rows[start : start + had]
    return values


def blocks(layer: FieldEmbedding) -> dict[str, tuple[int, int]]:
    """The first row of each vocabulary, and the number of its rows."""
    starts = [*layer.offsets.values(), layer.num_rows]
    return {
        owner: (start, after - start)
        for (owner, start), after in zip(layer.offsets.items(), starts[1:], strict=True)
    }
