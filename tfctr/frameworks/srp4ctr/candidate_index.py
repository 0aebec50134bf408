"""Candidate retrieval, the step before ranking, as a SavedModel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfctr.data.vocabulary import Vocabulary
from tfctr.frameworks.srp4ctr import FgBert
from tfctr.schema import FIRST_TOKEN_ID, check_has_tokens
from tfctr.serving.exporter.constants import dense_as_constants
from tfctr.serving.exporter.raw_features import RawFeatures
from tfctr.serving.exporter.version import write_version
from tfctr.serving.raw_values import raw_spec


def export_candidates(
    model: FgBert,
    data: Any,
    part: str,
    directory: str | Path,
    k: int = 100,
    search: str = "exact",
) -> Path:
    """Writes the next version of an index of items, `directory/<version>/`.

    Its only signature, `serving_default`, takes the raw histories that the encoder reads, `[B, M]`,
    and returns `candidates` `[B, k]`, tokens as in the log, the best first, and `scores` `[B, k]`,
    the logits of the next item. Items of the history are left out. No other input is needed.

    Args:
        model: a pre-trained encoder with its heads.
        data: the `tfctr.data.Dataset` with its vocabularies.
        part: the history whose tokens are retrieved, e.g. that of item ids.
        directory: the model's directory; its name is the model's name.
        k: int. Number of candidates.
        search: `"exact"`: all inner products; `"scann"`: approximate, in a tree of quantised
            vectors; needs the Python package scann here and its ops in the server.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: `part` is no item-side history of the encoder; there are too few items; no such
            search.
        DataError: as for `export`.
        ImportError: scann is not installed.
    """
    encoder = model.encoder
    if search not in ("exact", "scann"):
        raise ValueError(f"search: found {search!r}; allowed: exact, scann")
    if part not in encoder.behaviours.of_item:
        raise ValueError(
            f"part: found {part!r}; histories that share an item's feature are: "
            f"{', '.join(encoder.behaviours.of_item)}"
        )
    schema = encoder.schema.select(encoder.parts)
    files = {
        f.name: Path(data.vocabulary_file(data.schema[f.name].vocabulary)) for f in schema.inputs
    }
    history = schema[part]
    check_has_tokens(history, "part", "candidates would have no ids to answer with")
    vectors = tf.convert_to_tensor(model.vectors(part))
    most = int(vectors.shape[0]) - history.max_length
    if most < k:
        raise ValueError(
            f"k: found {k}; {vectors.shape[0]:,} items, less a history of {history.max_length}, "
            f"leave {most:,}"
        )
    raw = RawFeatures(schema, files)
    factorized = tfrs.layers.factorized_top_k
    looked_at = k + history.max_length  # before those of the history are removed
    index = factorized.BruteForce(k=looked_at)
    if search == "scann":
        index = factorized.ScaNN(k=looked_at, num_reordering_candidates=4 * looked_at)
    index.index(vectors, identifiers=tf.range(vectors.shape[0], dtype=tf.int64) + FIRST_TOKEN_ID)
    tokens = tf.constant(Vocabulary.open(files[part], history.dtype).tokens.to_pylist())
    if history.dtype == "int":
        tokens = tf.cast(tokens, tf.int64)

    def serving_default(**histories: tf.Tensor) -> Mapping[str, tf.Tensor]:
        ids = raw.look_up(histories)
        scores, found = index.query_with_exclusions(model.queries(ids, part), ids[part], k=k)
        return {"candidates": tf.gather(tokens, found - FIRST_TOKEN_ID), "scores": scores}

    specs = {feature.name: raw_spec(feature) for feature in schema.inputs}
    served = tf.Module()
    served.raw, served.index = raw, index
    served.weights = [weight.value for weight in model.weights]
    with dense_as_constants(model):
        traced = tf.function(serving_default, autograph=False).get_concrete_function(**specs)
    return write_version(Path(directory), served, {"serving_default": traced}, schema, files)
