"""Statistics of a user's earlier events, and of a candidate in view of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.frameworks.statistics.attribute_statistics import AttributeStatistics
from tfctr.frameworks.statistics.config import APART, POPULATIONS
from tfctr.frameworks.statistics.neighbour_statistics import NUMBERS, NeighbourStatistics
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, PAD_ID

WINDOWS = (3, 10, 25, 50, 150)  # latest events
USUAL = 3  # place of the window whose mean deviation is the usual one
SHARE_WINDOWS = (10, 50)
DEVIATION_PRIOR = 2.5  # events of deviation 0 that a user's mean deviation is shrunk by
SHARE_PRIOR = 5.0  # events of the usual share
LIMIT = 3.0  # of a scaled number
LEAST_GAP = 0.01  # between knots, in deviations


@keras.saving.register_keras_serializable("tfctr")
class UserStatistics(keras.layers.Layer):
    """Numbers of a user and a candidate, from the user's events and tables of items.

    `encode` is computed once a user, `of_candidates` for each candidate; `scaled` and `between`
    make inputs of the numbers. Nothing of it is trained: the tables come from a job
    (`set_tables`), and the scale from training rows (`set_scale`).

    `d` is a grade less its item's mean. The numbers of a user are: the mean `d` of the latest
    3, 10, 25, 50, 150 and of all events; the shares of high and of low grades among the latest 10,
    50 and all; the logarithm of their number. Those of a candidate: its item's mean grade and
    popularity; twice, for all events alike and for such that fade, what the factor model
    (`factor_model`) expects of it: the grade, its deviation from the mean, and the variance; those
    of `AttributeStatistics`; and those of `NeighbourStatistics`.

    The tables exist for three populations of users: each half, and all. In training a user reads
    those of the other half, so that no row's own label is in them. What is served has those of all
    users only (`populations`).

    Args:
        num_items: int. Ids of items.
        num_grades: int. Ids of grades.
        attribute_sizes: ids of each feature that is an attribute of items; together `G`.
        neighbours: int. Similar items `K` of an item; 0: none.
        factors: int. Width `f` of the factor model.
        num_knots: int. Of each number, for vectors that are interpolated.
        fading: float. Events after which one weighs `1 / e`, where it fades.
        attribute_fadings: the same, for attributes; for each there are numbers of its own.
        populations: int. 3; or 1, that of all users, which cannot be trained with. Defaults to 3.
    """

    def __init__(
        self,
        num_items: int,
        num_grades: int,
        attribute_sizes: Sequence[int],
        neighbours: int,
        factors: int,
        num_knots: int,
        fading: float,
        attribute_fadings: Sequence[float],
        populations: int = POPULATIONS,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.populations = populations
        self.num_items = num_items
        self.num_grades = num_grades
        self.attribute_sizes = [*attribute_sizes]
        self.neighbours = neighbours
        self.factors = factors
        self.num_knots = num_knots
        self.fading = fading
        self.attribute_fadings = [*attribute_fadings]
        self.num_of_user = len(WINDOWS) + 1 + 2 * (len(SHARE_WINDOWS) + 1) + 1
        self.num_numbers = self.num_of_user + 2 + 2 * 3
        if attribute_sizes:
            self.of_attributes = AttributeStatistics(num_items, attribute_sizes, attribute_fadings)
            self.num_numbers += self.of_attributes.num_numbers
        if neighbours:
            self.of_neighbours = NeighbourStatistics(populations * num_items, neighbours)
            self.num_numbers += NUMBERS

    def build(self, input_shape: Any = None) -> None:
        def table(name: str, *shape: int, value: str = "zeros") -> Any:
            # Not cast where a student computes in a lower precision: counts would not be exact.
            return self.add_weight(shape, value, trainable=False, autocast=False, name=name)

        rows = self.populations * self.num_items
        self.means = table("means", rows)
        self.loadings = table("loadings", rows, self.factors)
        self.popularity = table("popularity", rows)
        self.noise = table("noise", self.populations, value="ones")
        if self.attribute_sizes:
            self.of_attributes.build()
        if self.neighbours:
            self.of_neighbours.build()
        self.grades = table("grades", self.num_grades)
        self.is_grade = table("is_grade", self.num_grades)
        self.shares = table("shares", 2)
        self.grade_scale = table("grade_scale", 2, value="ones")  # mean and deviation of all
        self.center = table("center", self.num_numbers)
        self.spread = table("spread", self.num_numbers, value="ones")
        self.knots = table("knots", self.num_numbers, self.num_knots)
        self.built = True

    @property
    def table_variables(self) -> list[Any]:
        """The variables that `set_tables` sets."""
        names = ["means", "loadings", "popularity", "noise"]
        names += ["grades", "is_grade", "shares", "grade_scale"]
        found = [getattr(self, name) for name in names]
        if self.attribute_sizes:
            found += self.of_attributes.weights
        return found + (self.of_neighbours.weights if self.neighbours else [])

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Takes the arrays of the job's `tables.npz`.

        Ids that entered a vocabulary after the tables were made are like items without an event.
        """
        tables = with_new_ids(tables, self.num_items, self.num_grades)
        for name in ("means", "loadings", "popularity"):
            values = tables[name]
            getattr(self, name).assign(values.reshape(-1, *values.shape[2:]))
        for name in ("noise", "grades", "is_grade", "shares", "grade_scale"):
            getattr(self, name).assign(tables[name])
        if self.attribute_sizes:
            self.of_attributes.set_table(tables["attributes"], tables["attribute_sizes"])
        if self.neighbours:
            shape = (-1, self.neighbours)
            ids, similarities = tables["neighbours"], tables["similarities"]
            self.of_neighbours.set_tables(ids.reshape(shape), similarities.reshape(shape))

    def set_scale(self, center: np.ndarray, spread: np.ndarray, knots: np.ndarray) -> None:
        """Takes the numbers' mean and deviation `[S]`, and knots `[S, num_knots]`."""
        self.center.assign(center)
        self.spread.assign(spread)
        self.knots.assign(knots)

    def population(self, users: Any, training: bool) -> Any:
        """The tables that users of the ids `[B]` read, int `[B]`."""
        if not training:
            return ops.zeros_like(users) + (self.populations - 1)
        if self.populations == 1:
            raise ValueError("populations: found 1; in training a user needs those of both halves")
        return 1 - users % 2

    def encode(self, items: Any, grades: Any, population: Any) -> dict[str, Any]:
        """The user's part of the numbers.

        Args:
            items, grades: ids `[B, L]` of the same events, oldest first, padded at the end.
            population: int `[B]`.

        Returns:
            `numbers` `[B, U]`; `tastes` `[B, 2, f]` and `doubts` `[B, 2, f, f]`, mean and
            covariance of the user's factors, for all events alike and for such that fade; if there
            are attributes, `affinities`, of `AttributeStatistics.encode`; if there are neighbours,
            `events` and `sums` of `NeighbourStatistics.encode`.
        """
        length = items.shape[1]
        rows = ops.expand_dims(population, 1) * self.num_items + items
        known = ops.cast(items >= FIRST_TOKEN_ID, "float32") * ops.take(self.is_grade, grades)
        grade = ops.take(self.grades, grades)
        deviation = (grade - ops.take(self.means, rows)) * known
        places = ops.arange(1, length + 1)
        is_event = ops.logical_or(items != PAD_ID, grades != PAD_ID)
        last = ops.max(ops.where(is_event, places, 0), axis=1, keepdims=True)
        # Behind the last event it would be negative, and what grows with it infinite.
        lag = ops.cast(ops.maximum(last - places, 0), "float32")

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
        encoded = {
            "numbers": self._of_user(deviation, grade, known, lag),
            "tastes": ops.stack(tastes, axis=1),
            "doubts": ops.stack(doubts, axis=1),
        }
        if self.attribute_sizes:
            encoded["affinities"] = self.of_attributes.encode(items, deviation, known, lag)
        if self.neighbours:
            usual = encoded["numbers"][:, USUAL : USUAL + 1]
            encoded["events"], encoded["sums"] = self.of_neighbours.encode(
                items, deviation, usual, known, lag
            )
        return encoded

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
        if self.attribute_sizes:
            found += self.of_attributes.of_candidates(user["affinities"], items)
        if self.neighbours:
            found += self.of_neighbours.of_candidates(user["events"], user["sums"], rows)
        return ops.concatenate(found, axis=2)

    def scaled(self, numbers: Any) -> Any:
        """Standardised and clipped numbers `[..., S]`."""
        return ops.clip((numbers - self.center) / self.spread, -LIMIT, LIMIT)

    def between(self, numbers: Any) -> tuple[Any, Any]:
        """The knot below each number, int32 `[..., S]`, and the number's place from there to the
        next knot, 0 to 1."""
        above = ops.cast(ops.expand_dims(numbers, -1) >= self.knots[:, 1:-1], "int32")
        below = ops.sum(above, axis=-1)
        first = below + ops.arange(self.num_numbers) * self.num_knots
        start, end = ops.take(self.knots, first), ops.take(self.knots, first + 1)
        gap = ops.maximum(end - start, 1e-12)  # 0 where no scale was set
        return below, ops.clip((numbers - start) / gap, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        names = ["num_items", "num_grades", "attribute_sizes", "neighbours", "factors", "num_knots"]
        names += ["fading", "attribute_fadings", "populations"]
        return {"name": self.name} | {n: getattr(self, n) for n in names}


def knots_of(numbers: np.ndarray, num_knots: int) -> np.ndarray:
    """Knots `[S, num_knots]` with equally many rows of `numbers [N, S]` between them.

    Where many rows are equal, knots are at least `LEAST_GAP` of the deviation apart. So a vector
    that is interpolated between knots hardly changes with the rounding of a number.
    """
    found: np.ndarray = np.quantile(numbers, np.linspace(0, 1, num_knots), axis=0).T
    spread = numbers.std(0)
    gap = LEAST_GAP * np.where(spread > 0, spread, 1.0)
    for knot in range(1, num_knots):
        found[:, knot] = np.maximum(found[:, knot], found[:, knot - 1] + gap)
    return found


def with_new_ids(
    tables: Mapping[str, np.ndarray], num_items: int, num_grades: int
) -> dict[str, np.ndarray]:
    """The tables, but those of attributes, with rows for ids that are not in them yet.

    A new item has the row of the out-of-vocabulary item, which never has an event; a new grade
    counts as none.
    """
    found = dict(tables)
    for name in ("means", "loadings", "popularity", "neighbours", "similarities"):
        if name in found:
            new = num_items - found[name].shape[1]
            rows = np.repeat(found[name][:, OOV_ID : OOV_ID + 1], new, axis=1)
            found[name] = np.concatenate([found[name], rows], axis=1)
    for name in ("grades", "is_grade"):
        found[name] = np.pad(found[name], [(0, num_grades - len(found[name]))])
    return found
