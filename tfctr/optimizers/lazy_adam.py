"""Adam that updates only the embedding rows that the batch has read."""

import math
from typing import Any

import keras
import tensorflow as tf

from tfctr.optimizers.rows import RowOptimizer, local_copy, squares_like


@keras.saving.register_keras_serializable("tfctr")
class LazyAdam(RowOptimizer, keras.optimizers.Adam):
    """Adam (Kingma & Ba, 2015, arXiv:1412.6980), at the cost of a batch's rows.

    Dense gradients: Adam as in Keras, in one operation for a variable where Keras has some twenty,
    for a student with a sequence encoder has hundreds of variables. Row gradients
    (`tf.IndexedSlices`, from a table that is read with `table.value.sparse_read(ids)`): duplicate
    rows are merged first, where Keras squares them one by one, and then only these rows and their
    moments are read and written. A row that a batch leaves out keeps its value and moments as they
    are.

    `embedding_l2` adds `λw` to the gradients of tables, and only of those: a variable with dense
    gradients never gets it (give its layer a regularizer). It approximates L2 under Adam over the
    whole table, at the cost of the rows touched, from the first step that touches a row; a row that
    no step has touched keeps its value. When a row is read again, and for all rows in `catch_up`,
    the `k` steps up to step `t` that skipped it are applied first, element by element and at once.
    `η` is their mean learning rate, `c(s) = √(1 - β2^s)`:

        r = β2^(-1/2),  q = β1 r,  f = t - k + 1
        w ← w - η c(f) / (1 - β1^f) · m / (√v + ε) · (q + ... + q^k)
        d = w (1 - exp(-η λ c / (√v + ε) · (r^k - 1) / (r - 1))),  c = c(t - k/2)
        w ← w - sign(d) min(|d|, η k · c λ|w| / (c λ|w| + ε))
        m ← β1^k m,  v ← β2^k v

    The first line is the remaining momentum. The next two are the pull of L2, which grows while the
    old click gradients fade from `v`; the minimum is Adam's largest move on `λw` alone. Without
    `embedding_l2` the momentum of a row waits for its next batch, so rare rows move less.

    Measured against dense Adam with L2, over 30 to 2,000 steps of Zipf-distributed ids, `λ` from
    1e-5 to 1e-3: tables differ by 2% to 14% of the distance moved, and by 41% to 98% if `λw` is
    only added to the rows of a batch. A batch reads its rows before this catch-up.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        beta_1: float. Decay of the mean of gradients.
        beta_2: float. Decay of the mean of squares.
        epsilon: float. Added to the root of the mean of squares.
        embedding_l2: float. `λ`. Defaults to 0.
        compact_state: bool. Tables have one mean of squares a row, as in FBGEMM's partial row-wise
            Adam, and bfloat16 means of gradients. A table of `D` numbers a row then takes
            `6D + 4` bytes a row with its state, and 8 with L2, in place of `12D`. Defaults to
            False.
        **kwargs: of `keras.optimizers.Adam`. `clipnorm`, `clipvalue` and `global_clipnorm` apply
            to the merged gradient, without `λw`. `weight_decay` and `use_ema` work on whole tables
            at every step, as in Keras.

    Raises:
        ValueError: `amsgrad=True`; `embedding_l2` with `β1² ≥ β2`, where Adam diverges.

    Examples:
        >>> optimizer = LazyAdam(1e-3, embedding_l2=1e-4)
        >>> model.compile(optimizer)  # a backbone
        >>> model.fit(train)
        >>> tfctr.optimizers.catch_up(model.optimizer)  # only of other Keras models
        >>> model.evaluate(test)
    """

    ROW_WISE = ("velocity",)

    def __init__(
        self,
        learning_rate: Any,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        embedding_l2: float = 0.0,
        compact_state: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            embedding_l2=embedding_l2,
            compact_state=compact_state,
            **kwargs,
        )
        if self.amsgrad:
            raise ValueError("`amsgrad` is not supported: use `keras.optimizers.Adam`.")
        if embedding_l2 and not beta_1**2 < beta_2 < 1:
            raise ValueError(
                "`embedding_l2` needs beta_1**2 < beta_2 < 1. "
                f"Received: beta_1={beta_1}, beta_2={beta_2}"
            )

    def slots(self, index: int) -> list[Any]:
        return [self._momentums[index], self._velocities[index]]

    def step_dense(self, gradient: Any, variable: Any, rate: Any) -> None:
        index = self._get_variable_index(variable)
        w, m, v = (local_copy(table) for table in (variable, *self.slots(index)))
        step = tf.cast(self.iterations + 1, w.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=w.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=tf.cast(self.beta_1, w.dtype) ** step,
            beta2_power=tf.cast(self.beta_2, w.dtype) ** step,
            lr=tf.cast(rate, w.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, w.dtype),
        )

    def step_rows(self, w: Any, slots: list[Any], gradient: Any, rate: Any) -> tuple[Any, ...]:
        m, v = slots
        step = tf.cast(self.iterations + 1, w.dtype)
        alpha = rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        m += (gradient - m) * (1 - self.beta_1)
        v += (squares_like(v, gradient) - v) * (1 - self.beta_2)
        return w - m * alpha / (tf.sqrt(v) + self.epsilon), m, v

    def skip_steps(self, w: Any, slots: list[Any], skipped: Any, rate: Any) -> tuple[Any, ...]:
        m, v = slots
        root = tf.sqrt(v) + self.epsilon
        now = tf.cast(self.iterations, w.dtype)
        log_r = -0.5 * math.log(self.beta_2)

        q = self.beta_1 * math.exp(log_r)
        first = now - skipped + 1
        alpha = rate * tf.sqrt(1 - self.beta_2**first) / (1 - self.beta_1**first)
        w -= alpha * (q * (1 - q**skipped) / (1 - q)) * m / root

        # r^k overflows float32 after 177 thousand steps; by e^80 the row has long decayed.
        growth = tf.math.expm1(tf.minimum(skipped * log_r, 80.0)) / math.expm1(log_r)
        pull_of_one = self.embedding_l2 * tf.sqrt(1 - self.beta_2 ** (now - skipped / 2))
        size = tf.abs(w)
        pull = pull_of_one * size
        most = rate * skipped * tf.math.divide_no_nan(pull, pull + self.epsilon)
        shrunk = -size * tf.math.expm1(-rate * pull_of_one * growth / root)
        w -= tf.sign(w) * tf.minimum(shrunk, most)
        return w, m * self.beta_1**skipped, v * self.beta_2**skipped
