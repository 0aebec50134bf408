"""Attributes of items, and what a user said of each lately and in the long run."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.frameworks.statistics.attribute_table import with_new_ids

PRIOR = 3.0  # events of deviation 0 that a user's mean deviation for an attribute is shrunk by
NOTHING_KNOWN = 1e9  # above every mean deviation


@keras.saving.register_keras_serializable("tfctr")
class AttributeStatistics(keras.layers.Layer):
    """What a user said of items with the attributes of a candidate.

    For each feature of attributes, such as the genres, and over the candidate's tokens of it: the
    mean of the user's mean deviation with each, and the logarithm of the mean number of events, of
    all events and of such that fade; and the least mean deviation, of all events.

    Args:
        num_items: int. Ids of items.
        sizes: ids of each feature; together `G`.
        fadings: floats. Events after which one weighs `1 / e`; for each there are numbers of its
            own, beside those of all events.
    """

    def __init__(
        self, num_items: int, sizes: Sequence[int], fadings: Sequence[float], **kwargs: Any
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.num_items = num_items
        self.sizes = [*sizes]
        self.fadings = [*fadings]
        self.num_scales = 1 + len(self.fadings)
        self.num_numbers = len(self.sizes) * (2 * self.num_scales + 1)

    def build(self, input_shape: Any = None) -> None:
        self.table = self.add_weight(
            (self.num_items, sum(self.sizes)),
            "zeros",
            trainable=False,
            autocast=False,
            name="table",
        )
        self.built = True

    def set_table(self, table: np.ndarray, sizes: np.ndarray) -> None:
        """Takes a table `[items, G]`, 1 where an item has an attribute; of features of these sizes.

        Ids that entered a vocabulary after the table was made are no item's, and such items have
        none.
        """
        self.table.assign(with_new_ids(table, sizes, self.num_items, self.sizes))

    def encode(self, items: Any, deviation: Any, known: Any, lag: Any) -> Any:
        """A user's mean deviation and number of events with each attribute `[B, A, 2, G]`.

        Args:
            items: ids `[B, L]`.
            deviation, known, lag: float `[B, L]`; events that are not known do not count, and have
                the deviation 0.

        Returns:
            For `A` scales: of all events, and of such that fade.
        """
        weights = [ops.ones_like(lag), *(ops.exp(-lag / fading) for fading in self.fadings)]
        weighted = [values * weight for weight in weights for values in (deviation, known)]
        sums = ops.matmul(ops.stack(weighted, axis=1), ops.take(self.table, items, axis=0))
        sums = ops.reshape(sums, (-1, self.num_scales, 2, sums.shape[-1]))
        return ops.stack([sums[:, :, 0] / (sums[:, :, 1] + PRIOR), sums[:, :, 1]], axis=2)

    def of_candidates(self, user: Any, items: Any) -> list[Any]:
        """The numbers, each `[B, N, 1]`.

        Args:
            user: from `encode`.
            items: ids `[B, N]`.
        """
        all_own = ops.take(self.table, items, axis=0)
        found = []
        for start, stop in pairwise(accumulate(self.sizes, initial=0)):
            own, of_user = all_own[:, :, start:stop], user[..., start:stop]
            of_user = ops.reshape(of_user, (-1, 2 * self.num_scales, stop - start))
            number = ops.maximum(ops.sum(own, axis=2), 1.0)
            means = ops.matmul(own, ops.transpose(of_user, (0, 2, 1))) / number[:, :, None]
            for scale in range(self.num_scales):
                found += [means[:, :, 2 * scale], ops.log1p(means[:, :, 2 * scale + 1])]
            least = ops.min(ops.where(own > 0, of_user[:, :1], NOTHING_KNOWN), axis=2)
            found.append(ops.where(least < NOTHING_KNOWN, least, 0.0))
        return [ops.expand_dims(number, 2) for number in found]

    def get_config(self) -> dict[str, Any]:
        names = ["num_items", "sizes", "fadings"]
        return {"name": self.name} | {name: getattr(self, name) for name in names}
