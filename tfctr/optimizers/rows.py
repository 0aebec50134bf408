"""Optimizer steps over the rows of an embedding table that a batch has read."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf


def merge_duplicate_rows(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient with every row once: `values [n, ...]`, `indices [n]` distinct."""
    rows, position = tf.unique(gradient.indices)
    count, distinct = tf.size(gradient.indices), tf.size(rows)
    of_a_row = tf.shape(gradient.values)[1:]
    # A product with a matrix of zeros and ones takes half the time of `unsorted_segment_sum`.
    values = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.stack([tf.cast(position, tf.int64), tf.range(tf.cast(count, tf.int64))], 1),
        a_values=tf.ones([count], gradient.values.dtype),
        a_shape=tf.cast([distinct, count], tf.int64),
        b=tf.reshape(gradient.values, [count, tf.reduce_prod(of_a_row)]),
    )
    values = tf.reshape(values, tf.concat([[distinct], of_a_row], 0))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def local_copy(variable: Any) -> Any:
    """The `tf.Variable` that can be read by rows: under `tf.distribute`, this replica's copy."""
    native = variable.value if isinstance(variable, keras.Variable) else variable
    copy_of_this_replica = getattr(native, "_get_on_device_or_primary", None)
    return copy_of_this_replica() if copy_of_this_replica else native


class RowOptimizer(keras.optimizers.Optimizer):
    """The base of `LazyAdam` and `LazyAdagrad`; in their bases it precedes a dense optimizer.

    A dense gradient goes to that optimizer. For a `tf.IndexedSlices`, duplicate rows are merged and
    only these rows of the variable and of its slots are read and written. A subclass implements the
    slots (`slots`), the step of a row (`step_rows`) and the effect of skipped steps
    (`skip_steps`).

    With `embedding_l2 > 0` each variable also gets, per row, the number of its last step (int32)
    and the sum of the learning rates up to it (float32), 8 bytes a row. A row whose last step is 0
    was never in a batch and keeps its value. Otherwise a training that starts from an earlier model
    would erase the rows that only the earlier data have. Variables that are no tables have only
    such rows, so tables need not be listed.

    With `compact_state` the slots of a table take half of its size or less: those in `ROW_WISE`
    are one float32 number a row, of the mean over the row; the others are bfloat16. A table is a
    `keras.Variable` with an attribute `by_rows` that is true, such as that of `FieldEmbedding`.

    Args:
        embedding_l2: float, at least 0. `λ`.
        compact_state: bool.
        **kwargs: those of the dense optimizer.

    Raises:
        ValueError: a negative `embedding_l2`; from `apply`, a row gradient together with
            `gradient_accumulation_steps` or `loss_scale_factor`.
    """

    ROW_WISE: ClassVar[tuple[str, ...]] = ()  # slots of squares, by Keras' names

    def __init__(self, embedding_l2: float, compact_state: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if embedding_l2 < 0:
            raise ValueError(f"`embedding_l2` should be at least 0. Received: {embedding_l2}")
        self.embedding_l2 = embedding_l2
        self.compact_state = compact_state

    def slots(self, index: int) -> list[Any]:
        """The slots of the variable of this index, each shaped like it, or `[n, 1, ...]`."""
        raise NotImplementedError

    def step_rows(self, w: Any, slots: list[Any], gradient: Any, rate: Any) -> tuple[Any, ...]:
        """One step: new `w` and slots from the old and a gradient, all in the dtype of `w`."""
        raise NotImplementedError

    def step_dense(self, gradient: Any, variable: Any, rate: Any) -> None:
        """One step of a variable with a dense gradient."""
        super().update_step(gradient, variable, rate)

    def skip_steps(self, w: Any, slots: list[Any], skipped: Any, rate: Any) -> tuple[Any, ...]:
        """The same after `skipped [n, 1, ...]` steps of the gradient `λw` at mean rate `rate`."""
        raise NotImplementedError

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        if not self._is_compact(reference_variable):
            return super().add_variable_from_reference(reference_variable, name, initializer)
        shape, dtype = reference_variable.shape, "bfloat16"
        if name in self.ROW_WISE:
            shape, dtype = (shape[0], *(1 for _ in shape[1:])), "float32"
        of_a_table = reference_variable.path.replace("/", "_")
        with self._distribution_strategy.extended.colocate_vars_with(reference_variable.value):
            return self.add_variable(shape, initializer, dtype, name=f"{of_a_table}_{name}")

    def _is_compact(self, variable: Any) -> bool:
        return self.compact_state and getattr(variable, "by_rows", False)

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        if self.embedding_l2:
            self._rate_sum = self.add_variable(
                (), dtype="float64", aggregation="only_first_replica", name="rate_sum"
            )
            self._last_steps = []
            self._last_rate_sums = []
            for variable in variables:
                name = variable.path.replace("/", "_")
                self._last_steps.append(
                    self.add_variable(variable.shape[:1], dtype="int32", name=f"{name}_last_step")
                )
                self._last_rate_sums.append(
                    self.add_variable(
                        variable.shape[:1], dtype="float32", name=f"{name}_last_rate_sum"
                    )
                )

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        if any(isinstance(gradient, tf.IndexedSlices) for gradient in grads):
            if self.gradient_accumulation_steps:
                raise ValueError(
                    "`gradient_accumulation_steps` keeps a gradient as large as the table. Use a "
                    f"larger batch. Received: {self.gradient_accumulation_steps}"
                )
            if self.loss_scale_factor is not None:
                raise ValueError(
                    "Keras cannot divide row gradients by `loss_scale_factor`. Wrap the optimizer "
                    "in `keras.optimizers.LossScaleOptimizer`, or train without. "
                    f"Received: {self.loss_scale_factor}"
                )
        rate = tf.cast(self.learning_rate, tf.float64)
        super().apply(grads, trainable_variables)
        if self.embedding_l2:
            self._rate_sum.assign_add(rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        tables = [local_copy(table) for table in (variable, *self.slots(index))]
        if not isinstance(gradient, tf.IndexedSlices):
            if self._is_compact(self._trainable_variables[index]):
                w, *slots = _read_all(tables)
                _write_all(
                    tables, self.step_rows(w, slots, gradient, tf.cast(learning_rate, w.dtype))
                )
            else:
                self.step_dense(gradient, variable, learning_rate)
            return
        gradient = merge_duplicate_rows(gradient)
        rows = gradient.indices
        w, *slots = (tf.cast(table.sparse_read(rows), variable.dtype) for table in tables)
        rate = tf.cast(learning_rate, w.dtype)
        values = tf.cast(gradient.values, w.dtype)
        if self.embedding_l2:
            last_step = local_copy(self._last_steps[index])
            last_rate_sum = local_copy(self._last_rate_sums[index])
            skipped, rates = self._skipped(
                last_step.sparse_read(rows), last_rate_sum.sparse_read(rows)
            )
            w, *slots = self._catch_up_rows(w, slots, skipped, rates)
            values += self.embedding_l2 * w
            step = tf.cast(self.iterations + 1, tf.int32)
            rate_sum = tf.cast(self._rate_sum + tf.cast(rate, tf.float64), tf.float32)
            _write(last_step, rows, tf.fill(tf.shape(rows), step))
            _write(last_rate_sum, rows, tf.fill(tf.shape(rows), rate_sum))
        for table, new in zip(tables, self.step_rows(w, slots, values, rate), strict=True):
            _write(table, rows, new)

    def catch_up(self, variables: Sequence[Any] | None = None) -> None:
        """Applies to rows the L2 of the steps that skipped them.

        Rows that no step has read keep their values. Call it before evaluating, saving weights to
        serve, and exporting. A second call changes nothing, nor does a call without
        `embedding_l2`. It reads and writes whole tables, with a few temporary copies.

        Args:
            variables: variables that the optimizer was built with. All of them if not given.
        """
        if not self.built or not self.embedding_l2:
            return
        chosen = self._trainable_variables if variables is None else variables
        self._check_variables_are_known(chosen)
        for variable in chosen:
            index = self._get_variable_index(variable)
            last_step = self._last_steps[index]
            last_rate_sum = self._last_rate_sums[index]
            skipped, rates = self._skipped(last_step, last_rate_sum)
            tables = [variable, *self.slots(index)]
            w, *slots = _read_all(tables)
            _write_all(tables, self._catch_up_rows(w, slots, skipped, rates))
            last_step.assign_add(skipped)
            last_rate_sum.assign_add(rates)

    def _skipped(self, last_step: Any, last_rate_sum: Any) -> tuple[Any, Any]:
        """The number of steps that skipped each row since its last, and the sum of their rates."""
        last_step, last_rate_sum = map(tf.convert_to_tensor, (last_step, last_rate_sum))
        skipped = tf.cast(self.iterations, tf.int32) - last_step
        rates = tf.cast(self._rate_sum, tf.float32) - last_rate_sum
        was_read = last_step > 0
        return tf.where(was_read, skipped, 0), tf.where(was_read, rates, 0.0)

    def _catch_up_rows(self, w: Any, slots: list[Any], skipped: Any, rates: Any) -> tuple[Any, ...]:
        """`skip_steps` for `skipped [n]` steps whose learning rates sum to `rates [n]`."""
        per_row = ([-1] + [1] * len(w.shape))[: len(w.shape)]  # [] for a scalar
        count = tf.reshape(tf.cast(skipped, w.dtype), per_row)
        rate = tf.reshape(tf.cast(rates, w.dtype), per_row) / tf.maximum(count, 1)
        return self.skip_steps(w, slots, count, rate)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if self._distribution_strategy.num_replicas_in_sync > 1:
            return grads  # clipped later, when the replicas' parts are summed
        return self._clip_merged(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        reduced = super()._all_reduce_sum_gradients(grads_and_vars)
        if self._distribution_strategy.num_replicas_in_sync == 1:
            return reduced
        grads, variables = zip(*reduced, strict=True)
        return list(zip(self._clip_merged(list(grads)), variables, strict=True))

    def _clip_merged(self, grads: list[Any]) -> list[Any]:
        """Clips the merged gradient: Keras would count a row that occurs twice as two rows."""
        if self.clipnorm is None and self.global_clipnorm is None and self.clipvalue is None:
            return grads
        grads = [merge_duplicate_rows(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        # A table's part of the global norm, and its clipped values, from the batch's rows only.
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in grads]
        return [
            tf.IndexedSlices(clipped, g.indices, g.dense_shape)
            if isinstance(g, tf.IndexedSlices)
            else clipped
            for g, clipped in zip(grads, super()._clip_gradients(values), strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        own = {"embedding_l2": self.embedding_l2, "compact_state": self.compact_state}
        return super().get_config() | own


def catch_up(optimizer: Any, variables: Sequence[Any] | None = None) -> None:
    """Calls `optimizer.catch_up(variables)` on lazy optimizers.

    It finds the `LazyAdam` and `LazyAdagrad` inside a `keras.optimizers.MultiOptimizer` or
    `LossScaleOptimizer`; does nothing for any other optimizer. Variables of other optimizers are
    skipped.

    Args:
        optimizer: a `keras.optimizers.Optimizer`, such as `model.optimizer`.
        variables: e.g. `model.trainable_variables`. Defaults to all that were built.
    """
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        for inner in optimizer.optimizers:
            catch_up(inner, variables)
    elif isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        catch_up(optimizer.inner_optimizer, variables)
    elif isinstance(optimizer, RowOptimizer) and optimizer.built:
        if variables is not None:
            known = {optimizer._var_key(v) for v in optimizer._trainable_variables}
            variables = [v for v in variables if optimizer._var_key(v) in known]
        optimizer.catch_up(variables)


def squares_like(slot: Any, values: Any) -> Any:
    """The squares of `values [n, ...]`; their means over a row if the slot has one number a row."""
    squares = tf.square(values)
    if slot.shape[1:] == values.shape[1:]:
        return squares
    return tf.reduce_mean(squares, axis=list(range(1, len(values.shape))), keepdims=True)


def _read_all(tables: Sequence[Any]) -> list[Any]:
    """A table and its slots, all in the dtype of the table."""
    return [tf.cast(tf.convert_to_tensor(table), tables[0].dtype) for table in tables]


def _write_all(tables: Sequence[Any], values: Sequence[Any]) -> None:
    for table, new in zip(tables, values, strict=True):
        table.assign(tf.cast(new, table.dtype))


def _write(table: Any, rows: Any, values: Any) -> None:
    table.scatter_update(tf.IndexedSlices(tf.cast(values, table.dtype), rows))
