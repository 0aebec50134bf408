"""Statistics of a user's earlier events, and of a candidate in view of them."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.frameworks.statistics.config import ALL_USERS, APART, POPULATIONS
from tfctr.schema import FIRST_TOKEN_ID, PAD_ID

WINDOWS = (3, 10, 25, 50, 150)  # latest events
SHARE_WINDOWS = (10, 50)
DEVIATION_PRIOR = 2.5  # events of deviation 0 that a user's mean deviation is shrunk by
SHARE_PRIOR = 5.0  # events of the usual share
LIMIT = 3.0  # of a scaled number


@keras.saving.register_keras_serializable("tfctr")
class UserStatistics(keras.layers.Layer):
    """Numbers of a user and a candidate, from the user's events and tables of items.

    `encode` is computed once a user, `of_candidates` for each candidate; `scale` makes inputs of
    the numbers. Nothing of it is trained: the tables come from a job (`set_tables`), and the scale
    from training rows (`set_scale`).

    `d` is a grade less its item's mean. The numbers of a user are: the mean `d` of the latest
    3, 10, 25, 50, 150 and of all events; the shares of high and of low grades among the latest 10,
    50 and all; the logarithm of their number. Those of a candidate: its item's mean grade and
    popularity; and twice, for all events alike and for such that fade, what the factor model
    (`factor_model`) expects of it: the grade, its deviation from the mean, and the variance.

    The tables exist for three populations of users: each half, and all. In training a user reads
    those of the other half, so that no row's own label is in them.

    Args:
        num_items: int. Ids of items.
        num_grades: int. Ids of grades.
        factors: int. Width `f` of the factor model.
        buckets: int. Of each number.
        fading: float. Events after which one weighs `1 / e`, where it fades.
    """

    def __init__(
        self,
        num_items: int,
        num_grades: int,
        factors: int,
        buckets: int,
        fading: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.num_items = num_items
        self.num_grades = num_grades
        self.factors = factors
        self.buckets = buckets
        self.fading = fading
        self.num_of_user = len(WINDOWS) + 1 + 2 * (len(SHARE_WINDOWS) + 1) + 1
        self.num_numbers = self.num_of_user + 2 + 2 * 3

    def build(self, input_shape: Any = None) -> None:
        def table(name: str, *shape: int, value: str = "zeros") -> Any:
            return self.add_weight(shape, initializer=value, trainable=False, name=name)

        rows = POPULATIONS * self.num_items
        self.means = table("means", rows)
        self.loadings = table("loadings", rows, self.factors)
        self.popularity = table("popularity", rows)
        self.noise = table("noise", POPULATIONS, value="ones")
        self.grades = table("grades", self.num_grades)
        self.is_grade = table("is_grade", self.num_grades)
        self.shares = table("shares", 2)
        self.grade_scale = table("grade_scale", 2, value="ones")  # mean and deviation of all
        self.center = table("center", self.num_numbers)
        self.spread = table("spread", self.num_numbers, value="ones")
        self.edges = table("edges", self.num_numbers, self.buckets - 1)
        self.built = True

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Takes the arrays of the job's `tables.npz`."""
        for name in ("means", "loadings", "popularity"):
            values = tables[name]
            getattr(self, name).assign(values.reshape(-1, *values.shape[2:]))
        for name in ("noise", "grades", "is_grade", "shares", "grade_scale"):
            getattr(self, name).assign(tables[name])

    def set_scale(self, center: np.ndarray, spread: np.ndarray, edges: np.ndarray) -> None:
        """Takes the numbers' mean and deviation `[S]`, and edges of buckets `[S, buckets - 1]`."""
        self.center.assign(center)
        self.spread.assign(spread)
        self.edges.assign(edges)

    def population(self, users: Any, training: bool) -> Any:
        """The tables that users of the ids `[B]` read, int `[B]`."""
        return 1 - users % 2 if training else ops.zeros_like(users) + ALL_USERS

    def encode(self, items: Any, grades: Any, population: Any) -> dict[str, Any]:
        """The user's part of the numbers.

        Args:
            items, grades: ids `[B, L]` of the same events, oldest first, padded at the end.
            population: int `[B]`.

        Returns:
            `numbers` `[B, U]`; `tastes` `[B, 2, f]` and `doubts` `[B, 2, f, f]`, mean and
            covariance of the user's factors, for all events alike and for such that fade.
        """
        length = items.shape[1]
        rows = ops.expand_dims(population, 1) * self.num_items + items
        known = ops.cast(items >= FIRST_TOKEN_ID, "float32") * ops.take(self.is_grade, grades)
        grade = ops.take(self.grades, grades)
        deviation = (grade - ops.take(self.means, rows)) * known
        places = ops.arange(1, length + 1)
        is_event = ops.logical_or(items != PAD_ID, grades != PAD_ID)
        last = ops.max(ops.where(is_event, places, 0), axis=1, keepdims=True)
        lag = ops.cast(last - places, "float32")

        loadings = ops.take(self.loadings, rows, axis=0)
        noise = ops.reshape(ops.take(self.noise, population), (-1, 1, 1))
        tastes, doubts = [], []
        for weights in (known, known * ops.exp(-lag / self.fading)):
            weighted = ops.transpose(loadings * weights[:, :, None], (0, 2, 1)) / noise
            precision = ops.matmul(weighted, loadings) + ops.eye(self.factors)
            doubt = ops.inv(precision)
            pull = ops.matmul(weighted, deviation[:, :, None])
            tastes.append(ops.matmul(doubt, pull)[:, :, 0])
            doubts.append(doubt)
        return {
            "numbers": self._of_user(deviation, grade, known, lag),
            "tastes": ops.stack(tastes, axis=1),
            "doubts": ops.stack(doubts, axis=1),
        }

    def _of_user(self, deviation: Any, grade: Any, known: Any, lag: Any) -> Any:
        standard = (grade - self.grade_scale[0]) / self.grade_scale[1]
        high = ops.cast(standard > APART, "float32") * known
        low = ops.cast(standard < -APART, "float32") * known
        number = ops.sum(known, axis=1)
        found = []
        for window in (*WINDOWS, math.inf):
            inside = known * ops.cast(lag < window, "float32")
            events = ops.sum(inside, axis=1)
            found.append(ops.sum(deviation * inside, axis=1) / (events + DEVIATION_PRIOR))
        for values, share in ((high, self.shares[0]), (low, self.shares[1])):
            for window in (*SHARE_WINDOWS, math.inf):
                inside = ops.cast(lag < window, "float32")
                events = ops.sum(known * inside, axis=1) + SHARE_PRIOR
                total = ops.sum(values * inside, axis=1)
                found.append((total + SHARE_PRIOR * share) / events)
        found.append(ops.log1p(number))
        return ops.stack(found, axis=1)

    def of_candidates(self, user: Mapping[str, Any], items: Any, population: Any) -> Any:
        """All numbers `[B, N, S]`.

        Args:
            user: from `encode`.
            items: ids `[B, N]`.
            population: int `[B]`.
        """
        rows = ops.expand_dims(population, 1) * self.num_items + items
        mean = ops.take(self.means, rows)
        loadings = ops.take(self.loadings, rows, axis=0)
        shared = ops.expand_dims(user["numbers"], 1) + ops.zeros_like(mean)[:, :, None]
        found = [shared, mean[:, :, None], ops.take(self.popularity, rows)[:, :, None]]
        for i in range(2):
            taste, doubt = user["tastes"][:, i], user["doubts"][:, i]
            expected = ops.matmul(loadings, taste[:, :, None])
            variance = ops.sum(ops.matmul(loadings, doubt) * loadings, axis=2, keepdims=True)
            found += [mean[:, :, None] + expected, expected, variance]
        return ops.concatenate(found, axis=2)

    def scaled(self, numbers: Any) -> Any:
        """Standardised and clipped numbers `[..., S]`."""
        return ops.clip((numbers - self.center) / self.spread, -LIMIT, LIMIT)

    def bucketized(self, numbers: Any) -> Any:
        """The bucket of each number, int32 `[..., S]`."""
        above = ops.expand_dims(numbers, -1) > self.edges
        return ops.sum(ops.cast(above, "int32"), axis=-1)

    def get_config(self) -> dict[str, Any]:
        names = ("num_items", "num_grades", "factors", "buckets", "fading")
        return {"name": self.name} | {name: getattr(self, name) for name in names}


def edges_of(numbers: np.ndarray, buckets: int) -> np.ndarray:
    """Edges `[S, buckets - 1]` between buckets with equally many rows of `numbers [N, S]`."""
    found: np.ndarray = np.quantile(numbers, np.linspace(0, 1, buckets + 1)[1:-1], axis=0).T
    return found
