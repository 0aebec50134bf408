"""Makes the model read some known ids of training rows as unknown."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfctr.data.dataset import Part, as_written
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID


def with_unknown_ids(
    batches: tf.data.Dataset, rates: Mapping[str, float], seed: int, part: Part
) -> tf.data.Dataset:
    """Replaces a share of the ids of some features by `OOV_ID`.

    So its vectors are trained, which stand for new users and items later: with `min_count: 1`, no
    training row has this id of its own. Missing values stay missing.

    Args:
        batches: `({feature: values}, labels)`, as `Dataset.train` gives them.
        rates: share of the rows, by categorical feature; each feature draws other rows.
        seed: int. The rows follow from it and from the number of the batch.
        part: of this worker; each worker draws other rows.
    """
    if not rates:
        return batches

    @as_written
    def replace(number: Any, batch: Any) -> Any:
        features, labels = batch
        shape = (len(rates), tf.shape(labels)[0])
        of_batch = [seed, number * part.workers + part.worker]
        drawn = tf.unstack(tf.random.stateless_uniform(shape, of_batch), len(rates))
        replaced = {}
        for chance, (name, rate) in zip(drawn, rates.items(), strict=True):
            ids = features[name]
            chosen = (chance < rate) & (ids >= FIRST_TOKEN_ID)
            replaced[name] = tf.where(chosen, tf.constant(OOV_ID, ids.dtype), ids)
        return features | replaced, labels

    return batches.enumerate().map(replace).prefetch(2)
