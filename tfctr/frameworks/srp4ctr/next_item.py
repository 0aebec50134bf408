"""Metrics of next-item prediction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfctr.data.dataset import Dataset
from tfctr.frameworks.srp4ctr.fg_bert import FgBert
from tfctr.schema import FIRST_TOKEN_ID, PAD_ID

CUTOFFS = (10, 50)
BATCH = 512


def next_item(model: FgBert, data: Dataset, part: str) -> dict[str, float]:
    """Hit rates and NDCG of the validation windows' latest item, predicted from the events before.

    All tokens of the part are ranked. With one right item a window's NDCG@k is
    `1 / log2(1 + rank)` if the rank is at most k, else 0.

    Args:
        model: the encoder and its heads.
        data: windows (`beam_pipelines.sequences`).
        part: an item-side history, e.g. that of item ids.

    Returns:
        `hit_rate_10`, `ndcg_10`, `hit_rate_50`, `ndcg_50`, and `windows`, the number of windows
        whose latest item is in the vocabulary.
    """
    vectors = tf.convert_to_tensor(model.vectors(part))
    tokens = tf.range(vectors.shape[0], dtype=tf.int64) + FIRST_TOKEN_ID
    most = min(max(CUTOFFS), int(vectors.shape[0]))
    index = tfrs.layers.factorized_top_k.BruteForce(k=most)
    index.index(vectors, identifiers=tokens)
    # Hit rates at every k: the difference of neighbours is the share of items at this rank.
    metric = tfrs.metrics.FactorizedTopK(candidates=index, ks=range(1, most + 1))
    query = tf.function(
        lambda features: model.queries(features, part), autograph=False, reduce_retracing=True
    )
    asked = 0
    for features, _ in data.valid(BATCH, features=model.reads):
        before, latest = without_latest(model, features)
        known = latest[part] >= FIRST_TOKEN_ID
        found = tf.boolean_mask(query(before), known)
        right = tf.boolean_mask(latest[part], known)
        metric.update_state(found, tf.gather(vectors, right - FIRST_TOKEN_ID), right)
        asked += int(right.shape[0])
    hits = np.array([float(value) for value in metric.result()])
    gains = np.diff(hits, prepend=0.0) / np.log2(np.arange(most) + 2)
    found = {"windows": float(asked)}
    for k in CUTOFFS:
        found |= {f"hit_rate_{k}": float(hits[:k][-1]), f"ndcg_{k}": float(gains[:k].sum())}
    return found


def without_latest(model: FgBert, windows: Mapping[str, Any]) -> tuple[Any, Any]:
    """Splits windows `[B, L + 1]` into histories `[B, L]` and their latest events."""
    exists = model.encoder.behaviours.exists(windows).numpy()
    last = exists.shape[1] - 1 - exists[:, ::-1].argmax(axis=1)
    before, latest = {}, {}
    for part in model.reads:
        ids = windows[part].numpy()
        latest[part] = tf.constant(ids[np.arange(len(ids)), last])
        ids = np.where(np.arange(ids.shape[1]) == last[:, None], PAD_ID, ids)
        before[part] = tf.constant(ids[:, : exists.shape[1] - 1])
    return before, latest
