"""Row optimizers against Keras' own on dense gradients."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import few_quick
from tfctr.optimizers import LazyAdagrad, LazyAdam, catch_up

PAIRS = [(LazyAdam, keras.optimizers.Adam), (LazyAdagrad, keras.optimizers.Adagrad)]
V, D = 40, 4


@keras.saving.register_keras_serializable("test_optimizers")
class Lookup(keras.layers.Layer):
    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(shape=(V, D), initializer="random_normal", name="table")
        self.table.by_rows = True

    def call(self, ids: Any) -> Any:
        return self.table.value.sparse_read(ids)


def small_model() -> keras.Model:
    keras.utils.set_random_seed(7)
    ids = keras.Input((3,), dtype="int32")
    hidden = keras.layers.Flatten()(Lookup(name="lookup")(ids))
    return keras.Model(ids, keras.layers.Dense(1, name="dense")(hidden))


def batches(n: int, rows: int = V, seed: int = 0) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, rows, (16, 3)).astype("int32"), rng.random((16, 1)).astype("float32"))
        for _ in range(n)
    ]


def weights(seed: int = 0, shape: tuple[int, ...] = (V, D)) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype("float32")


def row_gradients(
    steps: int, ids_per_step: Any, seed: int = 1, scale: float = 1e-3
) -> Iterator[tuple[Any, Any]]:
    """(ids, values) per step; `ids_per_step(rng)` draws the ids."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        ids = ids_per_step(rng)
        yield ids, rng.normal(0, scale, (len(ids), D)).astype("float32")


def dense_gradient(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    dense = np.zeros((V, D), "float32")
    np.add.at(dense, ids, values)
    return dense


def slices(ids: np.ndarray, values: np.ndarray) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(values), tf.constant(ids), tf.constant([V, D]))


def train_on_rows(optimizer: Any, gradients: Any, start: Any = None) -> keras.Variable:
    table = keras.Variable(weights() if start is None else start)
    for ids, values in gradients:
        optimizer.apply([slices(ids, values)], [table])
    return table


def train_densely(optimizer: Any, gradients: Any, l2: float = 0.0) -> keras.Variable:
    table = keras.Variable(weights())
    for ids, values in gradients:
        optimizer.apply([tf.constant(dense_gradient(ids, values) + l2 * table.numpy())], [table])
    return table


def every_row_and_some_twice(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.concatenate([np.arange(V), rng.integers(0, V, 30)]))


def zipf(rng: np.random.Generator) -> np.ndarray:
    popularity = 1 / np.arange(1, V + 1) ** 1.2
    return rng.choice(V, 8, p=popularity / popularity.sum())


@pytest.mark.parametrize(("lazy", "keras_class"), PAIRS)
def test_dense_gradients_step_as_in_keras(lazy: Any, keras_class: Any) -> None:
    ours, theirs = lazy(0.01, embedding_l2=0.1), keras_class(0.01)
    a, b = keras.Variable(weights()), keras.Variable(weights())
    for seed in range(20):
        gradient = tf.constant(weights(seed))
        ours.apply([gradient], [a])
        theirs.apply([gradient], [b])
    ours.catch_up()
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize(("lazy", "keras_class"), PAIRS)
def test_equals_keras_when_every_row_is_in_every_batch(
    lazy: Any, keras_class: Any, l2: float
) -> None:
    gradients = list(row_gradients(20, every_row_and_some_twice))
    table = train_on_rows(lazy(0.01, embedding_l2=l2), gradients)
    expected = train_densely(keras_class(0.01), gradients, l2)
    np.testing.assert_allclose(table.numpy(), expected.numpy(), atol=1e-6)


def test_an_id_that_occurs_a_thousand_times_is_one_row() -> None:
    ids, values = np.full(1000, 3), np.full((1000, D), 0.01, "float32")
    adam = train_on_rows(LazyAdam(0.001), [(ids, values)], np.zeros((V, D), "float32"))
    np.testing.assert_allclose(adam.numpy()[3], -0.001, rtol=1e-4)
    adagrad = train_on_rows(LazyAdagrad(0.01), [(ids, values)], np.zeros((V, D), "float32"))
    np.testing.assert_allclose(adagrad.numpy()[3], -0.01 * 10 / np.sqrt(0.1 + 10**2), rtol=1e-4)


@pytest.mark.parametrize(("lazy", "keras_class"), PAIRS)
def test_rows_outside_the_batch_keep_their_bits(lazy: Any, keras_class: Any) -> None:
    optimizer = lazy(0.01)
    table = train_on_rows(optimizer, row_gradients(3, lambda rng: rng.integers(0, V, 60)))
    before = [table.numpy(), *(slot.numpy() for slot in optimizer.slots(0))]
    optimizer.apply([slices(np.array([5, 5, 9]), weights(shape=(3, D)))], [table])
    after = [table.numpy(), *(slot.numpy() for slot in optimizer.slots(0))]
    others = np.delete(np.arange(V), [5, 9])
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[others], new[others])
        assert (old[[5, 9]] != new[[5, 9]]).all()


def every_row_then_zipf(steps: int, scale: float = 1e-3) -> list[tuple[Any, Any]]:
    """A dense optimizer moves rows that no batch has read yet; ours leave those as they are."""
    first = row_gradients(1, lambda rng: np.arange(V), scale=scale)
    return [*first, *row_gradients(steps, zipf, scale=scale)]


def distance_moved_apart(table: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(table - reference) / np.linalg.norm(reference - weights()))


@pytest.mark.slow
@pytest.mark.parametrize("l2", few_quick([1e-4, 1e-3], 1e-3))
def test_l2_on_touched_rows_ends_where_dense_adam_with_l2_does(l2: float) -> None:
    gradients = every_row_then_zipf(200)
    reference = train_densely(keras.optimizers.Adam(1e-3), gradients, l2).numpy()

    optimizer = LazyAdam(1e-3, embedding_l2=l2)
    table = train_on_rows(optimizer, gradients)
    optimizer.catch_up([table])
    assert distance_moved_apart(table.numpy(), reference) < 0.12

    naive = keras.Variable(weights())
    optimizer = LazyAdam(1e-3)
    for ids, values in gradients:
        rows = np.unique(ids)
        gradient = dense_gradient(ids, values)[rows] + l2 * naive.numpy()[rows]
        optimizer.apply([slices(rows, gradient)], [naive])
    assert distance_moved_apart(naive.numpy(), reference) > 0.5


def test_l2_on_touched_rows_ends_where_dense_adagrad_with_l2_does() -> None:
    gradients = every_row_then_zipf(200, scale=1e-2)
    reference = train_densely(keras.optimizers.Adagrad(0.1), gradients, 0.01).numpy()
    optimizer = LazyAdagrad(0.1, embedding_l2=0.01)
    table = train_on_rows(optimizer, gradients)
    assert distance_moved_apart(table.numpy(), reference) > 0.05
    optimizer.catch_up()
    assert distance_moved_apart(table.numpy(), reference) < 0.004


def test_adagrad_skips_steps_as_if_they_were_done_one_by_one() -> None:
    optimizer = LazyAdagrad(0.1, embedding_l2=0.02)
    w, accumulator = 0.5, 0.1
    for _ in range(300):
        accumulator += (0.02 * w) ** 2
        w -= 0.1 * 0.02 * w / np.sqrt(accumulator)
    rows = optimizer.skip_steps(
        tf.constant([[0.5]]), [tf.constant([[0.1]])], tf.constant([[300.0]]), tf.constant(0.1)
    )
    assert w < 0.25
    np.testing.assert_allclose(np.ravel(rows), [w, accumulator], rtol=0.05)
    np.testing.assert_allclose(rows[1] - 0.1, [[accumulator - 0.1]], rtol=0.05)


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_a_second_catch_up_changes_nothing(lazy: Any) -> None:
    optimizer = lazy(1e-3, embedding_l2=1e-3)
    table = train_on_rows(optimizer, row_gradients(30, zipf))
    stale = table.numpy()
    optimizer.catch_up()
    once = [table.numpy(), *(variable.numpy() for variable in optimizer.variables)]
    assert (once[0] != stale).any()
    optimizer.catch_up()
    for old, new in zip(once, [table, *optimizer.variables], strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_ten_million_skipped_steps_leave_finite_small_weights(lazy: Any) -> None:
    optimizer = lazy(1e-3, embedding_l2=1e-4)
    table = train_on_rows(optimizer, row_gradients(2, lambda rng: np.arange(V)))
    start = table.numpy()
    optimizer.iterations.assign(10_000_000)
    optimizer._rate_sum.assign(10_000_000 * 1e-3)
    optimizer.apply([slices(np.array([0]), np.zeros((1, D), "float32"))], [table])
    assert (np.abs(table.numpy()[0]) < 0.1 * np.abs(start[0])).all()
    optimizer.catch_up()
    for variable in [table, *optimizer.variables]:
        assert np.isfinite(variable.numpy()).all()
    assert (np.abs(table.numpy()) < 0.1 * np.abs(start)).all()


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_skipped_steps_decay_at_the_learning_rates_of_their_time(lazy: Any) -> None:
    schedule = keras.optimizers.schedules.PolynomialDecay(0.02, 100, end_learning_rate=0.0)
    dense_class = dict(PAIRS)[lazy]
    read = iter([np.arange(V)] + [np.array([0, 1])] * 99)
    gradients = list(row_gradients(100, lambda rng: next(read)))
    reference = train_densely(dense_class(schedule), gradients, 0.01).numpy()
    optimizer = lazy(schedule, embedding_l2=0.01)
    table = train_on_rows(optimizer, gradients)
    optimizer.catch_up()
    # Rows 2 and on were read by the first step alone; by now the learning rate is zero.
    moved = weights()[2:] - table.numpy()[2:]
    np.testing.assert_allclose(moved, weights()[2:] - reference[2:], rtol=0.02, atol=2e-3)


def test_a_learning_rate_schedule_steps_as_in_keras() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)
    gradients = list(row_gradients(20, every_row_and_some_twice))
    table = train_on_rows(LazyAdam(schedule), gradients)
    expected = train_densely(keras.optimizers.Adam(schedule), gradients)
    np.testing.assert_allclose(table.numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_sees_the_merged_gradient(clip: str) -> None:
    ids = np.array([2] * 50 + [4])
    values = np.full((51, D), 0.1, "float32")
    bias_gradient = tf.constant([3.0, 4.0])

    def step(optimizer: Any, table_gradient: Any) -> tuple[np.ndarray, np.ndarray]:
        table, bias = keras.Variable(np.zeros((V, D))), keras.Variable(np.zeros(2))
        optimizer.apply([table_gradient, bias_gradient], [table, bias])
        return table.numpy(), bias.numpy()

    # Adagrad, since Adam's first step has one length whatever the gradient's.
    ours = step(LazyAdagrad(0.1, **{clip: 1.0}), slices(ids, values))
    theirs = step(
        keras.optimizers.Adagrad(0.1, **{clip: 1.0}), tf.constant(dense_gradient(ids, values))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_fit_moves_the_rows_it_reads_and_no_others(lazy: Any) -> None:
    model = small_model()
    model.compile(optimizer=lazy(0.01), loss="mse", jit_compile=False)
    before = model.get_layer("lookup").table.numpy()
    data = batches(10, rows=V // 2)
    x, y = (np.concatenate(part) for part in zip(*data, strict=True))
    losses = model.fit(x, y, batch_size=16, epochs=5, verbose=0).history["loss"]
    after = model.get_layer("lookup").table.numpy()
    assert losses[-1] < losses[0]
    assert (after[np.unique(x)] != before[np.unique(x)]).any(axis=1).all()
    np.testing.assert_array_equal(after[V // 2 :], before[V // 2 :])


def test_l2_stays_away_from_variables_with_dense_gradients() -> None:
    x, y = batches(1)[0]
    kernels = []
    for l2 in (0.0, 0.5):
        model = small_model()
        model.compile(optimizer=LazyAdam(0.01, embedding_l2=l2), loss="mse", jit_compile=False)
        model.train_on_batch(x, y)
        catch_up(model.optimizer, model.trainable_variables)
        kernels.append(model.get_layer("dense").kernel.numpy())
    np.testing.assert_array_equal(*kernels)


def test_a_scalar_variable_is_no_obstacle() -> None:
    optimizer = LazyAdam(0.01, embedding_l2=0.1)
    table, temperature = keras.Variable(weights()), keras.Variable(1.0)
    gradient = slices(np.array([1]), weights(shape=(1, D)))
    optimizer.apply([gradient, tf.constant(2.0)], [table, temperature])
    optimizer.catch_up()
    np.testing.assert_allclose(temperature.numpy(), 0.99, rtol=1e-6)


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_a_row_that_no_step_has_read_keeps_its_bits(lazy: Any, tmp_path: Path) -> None:
    """As in a training that goes on from an earlier one, of which L2 would leave zeros."""
    model = small_model()
    model.compile(optimizer=lazy(0.01, embedding_l2=0.01), loss="mse", jit_compile=False)
    before = model.get_layer("lookup").table.numpy()
    read = np.arange(V // 2)
    data = batches(12, rows=len(read))
    x, y = (np.concatenate(part) for part in zip(*data, strict=True))

    def untouched_are_as_they_were(model: keras.Model) -> None:
        catch_up(model.optimizer, model.trainable_variables)
        table = model.get_layer("lookup").table.numpy()
        np.testing.assert_array_equal(table[len(read) :], before[len(read) :])
        assert (table[read] != before[read]).any(axis=1).all()

    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    untouched_are_as_they_were(model)
    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    untouched_are_as_they_were(model)
    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    resumed.fit(x, y, batch_size=16, epochs=3, verbose=0)
    untouched_are_as_they_were(resumed)


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_what_is_owed_to_a_row_begins_with_its_first_step(lazy: Any) -> None:
    """Steps before it count for nothing; those behind it do, as if it had been there from 0."""
    others, late = np.arange(V - 1), np.array([V - 1])
    optimizer = lazy(0.01, embedding_l2=0.01)
    table = train_on_rows(optimizer, row_gradients(5, lambda rng: others))
    optimizer.catch_up()
    assert (table.numpy()[late] == weights()[late]).all()
    gradient = np.full((1, D), 0.02, "float32")
    optimizer.apply([slices(late, gradient)], [table])
    rate = 0.01
    with_l2 = 0.02 + 0.01 * weights()[late]
    if lazy is LazyAdam:  # m and v from zero, at the optimizer's sixth step
        alpha = rate * np.sqrt(1 - 0.999**6) / (1 - 0.9**6)
        step = alpha * 0.1 * with_l2 / (np.sqrt(0.001 * with_l2**2) + 1e-7)
    else:
        step = rate * with_l2 / np.sqrt(0.1 + with_l2**2)
    np.testing.assert_allclose(table.numpy()[late], weights()[late] - step, rtol=1e-4)
    stale = table.numpy()[late]
    for ids, values in row_gradients(5, lambda rng: others):
        optimizer.apply([slices(ids, values)], [table])
    slots = [tf.constant(slot.numpy()[late]) for slot in optimizer.slots(0)]
    skipped = tf.constant([[5.0]])
    expected, *_ = optimizer.skip_steps(tf.constant(stale), slots, skipped, tf.constant(rate))
    optimizer.catch_up()
    assert (table.numpy()[late] != stale).any()
    np.testing.assert_allclose(table.numpy()[late], expected, rtol=1e-5)


def multi() -> keras.optimizers.MultiOptimizer:
    inner = {".*lookup/.*": LazyAdam(0.01, embedding_l2=0.01, name="rows")}
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.01, name="dense_part"), inner)
    )


OPTIMIZERS: dict[str, Any] = {
    "adam": lambda: LazyAdam(0.01, embedding_l2=0.01),
    "adam_schedule": lambda: LazyAdam(
        keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.5), embedding_l2=0.01
    ),
    "adagrad": lambda: LazyAdagrad(0.1, embedding_l2=0.01),
    "compact": lambda: LazyAdam(0.01, embedding_l2=0.01, compact_state=True),
    "multi": multi,
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_goes_on_after_save_and_load_as_if_uninterrupted(
    make: Any, tmp_path: Path
) -> None:
    data = batches(12)
    uninterrupted = small_model()
    uninterrupted.compile(optimizer=make(), loss="mse", jit_compile=False)
    for x, y in data[:6]:
        uninterrupted.train_on_batch(x, y)
    uninterrupted.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    for x, y in data[6:]:
        uninterrupted.train_on_batch(x, y)
        resumed.train_on_batch(x, y)
    for model in (uninterrupted, resumed):
        catch_up(model.optimizer, model.trainable_variables)
    for a, b in zip(uninterrupted.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    "wrap",
    [
        multi,
        lambda: keras.optimizers.LossScaleOptimizer(LazyAdam(0.01, embedding_l2=0.01)),
    ],
)
def test_catch_up_reaches_into_wrappers(wrap: Any) -> None:
    model = small_model()
    model.compile(optimizer=wrap(), loss="mse", jit_compile=False)
    x, y = batches(1, rows=5)[0]
    catch_up(model.optimizer, model.trainable_variables)  # nothing is built yet
    every_row = np.resize(np.arange(V), (V, 3))
    model.train_on_batch(every_row, np.zeros((V, 1)))
    for _ in range(5):
        model.train_on_batch(x, y)
    table = model.get_layer("lookup").table
    stale = table.numpy()
    catch_up(model.optimizer, model.trainable_variables)
    caught_up = table.numpy()
    assert (caught_up[5:] != stale[5:]).any(axis=1).all()
    np.testing.assert_array_equal(caught_up[np.unique(x)], stale[np.unique(x)])


def test_catch_up_leaves_other_optimizers_alone() -> None:
    model = small_model()
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    model.train_on_batch(*batches(1)[0])
    before = [w.numpy() for w in model.weights]
    catch_up(model.optimizer, model.trainable_variables)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_loss_scaling_changes_nothing_but_rounding() -> None:
    gradients = list(row_gradients(5, zipf))
    plain = train_on_rows(LazyAdam(0.01), gradients)
    scaled = train_on_rows(
        keras.optimizers.LossScaleOptimizer(LazyAdam(0.01), initial_scale=1024.0),
        [(ids, values * 1024) for ids, values in gradients],
    )
    np.testing.assert_allclose(scaled.numpy(), plain.numpy(), atol=1e-6)


def table_by_rows() -> keras.Variable:
    table = keras.Variable(weights())
    table.by_rows = True
    return table


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_compact_adam_is_a_loop_with_one_mean_of_squares_a_row(l2: float) -> None:
    optimizer, table = LazyAdam(0.01, embedding_l2=l2, compact_state=True), table_by_rows()
    expected, m, v = weights().astype(float), np.zeros((V, D)), np.zeros((V, 1))
    for step, (ids, values) in enumerate(row_gradients(20, every_row_and_some_twice), 1):
        optimizer.apply([slices(ids, values)], [table])
        gradient = dense_gradient(ids, values) + l2 * expected
        m += 0.1 * (gradient - m)
        v += 0.001 * ((gradient**2).mean(axis=1, keepdims=True) - v)
        alpha = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected -= alpha * m / (np.sqrt(v) + 1e-7)
    momentum, velocity = optimizer.slots(0)
    assert (momentum.dtype, momentum.shape) == ("bfloat16", (V, D))
    assert (velocity.dtype, velocity.shape) == ("float32", (V, 1))
    np.testing.assert_allclose(velocity.numpy(), v, rtol=1e-2)
    moved = np.abs(expected - weights()).mean()
    assert np.abs(table.numpy() - expected).mean() < 0.01 * moved  # of bfloat16


def test_compact_adagrad_is_a_loop_with_one_sum_of_squares_a_row() -> None:
    optimizer, table = LazyAdagrad(0.1, compact_state=True), table_by_rows()
    expected, sums = weights().astype(float), np.full((V, 1), 0.1)
    for ids, values in row_gradients(20, lambda rng: rng.integers(0, V, 30), scale=0.1):
        optimizer.apply([slices(ids, values)], [table])
        gradient = dense_gradient(ids, values)
        sums += (gradient**2).mean(axis=1, keepdims=True)
        expected -= 0.1 * gradient / np.sqrt(sums + 1e-7)
    assert [slot.shape for slot in optimizer.slots(0)] == [(V, 1)]
    np.testing.assert_allclose(table.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("lazy", [LazyAdam, LazyAdagrad])
def test_compact_state_is_of_tables_and_takes_dense_gradients_too(lazy: Any) -> None:
    optimizer, table = lazy(0.01, compact_state=True), table_by_rows()
    kernel, full = keras.Variable(weights()), lazy(0.01)
    beside = keras.Variable(weights())
    gradient = tf.constant(weights(3))
    optimizer.apply([gradient, gradient], [table, kernel])
    full.apply([gradient], [beside])
    np.testing.assert_array_equal(kernel.numpy(), beside.numpy())
    assert [slot.shape for slot in optimizer.slots(1)] == [slot.shape for slot in full.slots(0)]
    rows, by_rows = lazy(0.01, compact_state=True), table_by_rows()
    rows.apply([slices(np.arange(V), weights(3))], [by_rows])
    np.testing.assert_allclose(table.numpy(), by_rows.numpy(), atol=1e-7)


def test_the_config_makes_the_same_optimizer() -> None:
    optimizer = LazyAdam(0.02, beta_1=0.8, embedding_l2=0.3, compact_state=True, clipnorm=2.0)
    again = LazyAdam.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (again.embedding_l2, again.compact_state) == (0.3, True)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        LazyAdam(0.01, embedding_l2=-1.0)
    with pytest.raises(ValueError, match="amsgrad"):
        LazyAdam(0.01, amsgrad=True)
    with pytest.raises(ValueError, match=r"beta_1\*\*2 < beta_2"):
        LazyAdam(0.01, beta_1=0.9, beta_2=0.81, embedding_l2=0.1)


@pytest.mark.parametrize(
    "option", [{"gradient_accumulation_steps": 2}, {"loss_scale_factor": 8.0}], ids=str
)
def test_options_that_cannot_take_row_gradients_are_refused(option: dict[str, Any]) -> None:
    optimizer = LazyAdam(0.01, **option)
    with pytest.raises(ValueError, match=next(iter(option))):
        optimizer.apply([slices(np.array([1]), weights(shape=(1, D)))], [keras.Variable(weights())])
