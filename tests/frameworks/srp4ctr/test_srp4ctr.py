"""SRP4CTR: an encoder of events, what it learns from, and the student that carries it."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.backbones.test_sequence_backbones import EVENTS, EXISTS, events_schema
from tests.conftest import few_quick
from tfctr import backbones
from tfctr.frameworks.srp4ctr import FgBert, SequenceEncoder, Srp4ctrStudent
from tfctr.layers.attending_block import AttendingBlock, attention_mask, by_heads
from tfctr.layers.flat_dense import FlatDense
from tfctr.models.transfer import carry_on
from tfctr.optimizers import LazyAdam
from tfctr.schema import MASK_ID, OOV_ID, Schema

RNG = np.random.default_rng(0)
WIDTH = 8


def random(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def shaken(model: Any, scale: float = 0.5) -> Any:
    """The model with weights that are far from zero, so that nothing agrees by being small."""
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(random(*weight.shape) * scale)
    return model


STUDENT = {
    "cross_attention": True,
    "num_queries": 4,
    "num_query_blocks": 1,
    "frozen": "none",
    "refreshed": False,
}
FG_BERT = {"mask_rate": 0.2, "last_rate": 0.1, "sampled_tokens": None}


def encoder(num_layers: int = 2, schema: Schema | None = None) -> SequenceEncoder:
    return SequenceEncoder(
        (schema or events_schema()).select(
            ["hist_stars", "hist_item", "hist_brand", "item", "brand"]
        ),
        WIDTH,
        num_layers,
        num_heads=2,
        dropout=0.0,
    )


OF_ITEMS = ("item", "hist_item")


def grown(schema: Schema, by: int) -> Schema:
    """The schema with as many more items at the end of their vocabulary."""
    sizes = {name: {"vocabulary_size": schema["item"].num_ids + by} for name in OF_ITEMS}
    return schema.fitted(sizes)


def student(backbone: str = "dcn_v2", **arguments: Any) -> Srp4ctrStudent:
    schema = arguments.pop("schema", None) or events_schema()
    plain = (
        schema if backbone in ("din", "bst", "dien") else schema.select(["user", "item", "hour"])
    )
    made = backbones.create(backbone, plain, embedding_dim=4)
    arguments = STUDENT | {"num_queries": 3} | arguments
    events = encoder(arguments.pop("num_layers", 2), schema)
    model = Srp4ctrStudent(schema, made, events, **arguments)
    model.build()
    return shaken(model, 0.2)  # logits of some units, whose last digits count


# --- a block that looks ---------------------------------------------------------------------------


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def _norm(x: np.ndarray, layer: Any) -> np.ndarray:
    gamma, beta = (np.array(w) for w in layer.weights)
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gamma + beta


def _gelu(x: np.ndarray) -> np.ndarray:
    return np.array(keras.activations.gelu(x))


@pytest.mark.parametrize("with_own", [True, False])
def test_an_attending_block_is_a_loop_over_heads_and_places(with_own: bool) -> None:
    x, keys, values = random(4, 3, WIDTH), random(4, 4, WIDTH), random(4, 4, WIDTH)
    own = (random(4, 3, WIDTH), random(4, 3, WIDTH)) if with_own else None
    block = AttendingBlock(num_heads=2)
    block.build((None, WIDTH))
    shaken(block)

    def cut(vectors: np.ndarray) -> np.ndarray:
        return vectors.reshape(4, -1, 2, WIDTH // 2).transpose(0, 2, 1, 3)

    rows = x.reshape(-1, WIDTH)
    found = block(
        rows,
        by_heads(rows, (4, 3), 2, [block.query])[0],
        cut(keys),
        cut(values),
        attention_mask(EXISTS),
        [cut(part) for part in own] if own else None,
    )
    found = np.array(found).reshape(x.shape)
    dense = {
        name: [np.array(w) for w in getattr(block, name).weights]
        for name in ("query", "output_projection", "inner", "outer")
    }
    for b in range(4):
        for m in range(3):
            query = x[b, m] @ dense["query"][0] + dense["query"][1]
            attended = np.zeros(WIDTH)
            for head in (slice(0, 4), slice(4, 8)):
                there = [i for i in range(4) if EXISTS[b, i]]
                ks = [keys[b, i, head] for i in there] + ([own[0][b, m, head]] if own else [])
                vs = [values[b, i, head] for i in there] + ([own[1][b, m, head]] if own else [])
                if ks:
                    weights = _softmax(np.array([query[head] @ k / 2 for k in ks]))
                    attended[head] = sum(w * v for w, v in zip(weights, vs, strict=True))
            attended = attended @ dense["output_projection"][0] + dense["output_projection"][1]
            u = _norm(x[b, m] + attended, block.norms[0])
            inner = _gelu(u @ dense["inner"][0] + dense["inner"][1])
            expected = _norm(u + inner @ dense["outer"][0] + dense["outer"][1], block.norms[1])
            np.testing.assert_allclose(found[b, m], expected, atol=2e-5)


def test_dense_layers_by_heads_are_each_its_own_product() -> None:
    layers = [FlatDense(WIDTH) for _ in range(3)]
    for layer in layers:
        layer.build((None, WIDTH))
        shaken(layer)
    x = random(2, 5, WIDTH)
    for shape in ((2, 5), (-1, 5), (2, -1)):
        made = by_heads(x.reshape(-1, WIDTH), shape, 2, layers)
        for layer, found in zip(layers, made, strict=True):
            kernel, bias = (np.array(w) for w in layer.weights)
            assert found.shape == (2, 2, 5, WIDTH // 2)
            for head, part in enumerate((slice(0, 4), slice(4, 8))):
                expected = (x @ kernel + bias)[:, :, part]
                np.testing.assert_allclose(found[:, head], expected, atol=1e-5)


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"should divide the width 8\. Received: 3"):
        AttendingBlock(3).build((None, None, 8))


# --- the encoder and what it learns from ----------------------------------------------------------


def test_parts_are_of_the_item_or_of_what_the_user_did() -> None:
    assert encoder().groups == {"item": ("hist_item", "hist_brand"), "behaviour": ("hist_stars",)}


def test_an_event_is_the_sum_of_its_parts_and_its_place() -> None:
    layer = encoder()
    layer.build()
    shaken(layer)
    ids, exists = layer.behaviours.latest_first({k: tf.constant(v) for k, v in EVENTS.items()})
    assert np.array(ids["hist_stars"])[0].tolist() == [5, 7, 4, 0]
    np.testing.assert_array_equal(exists, np.sort(EXISTS, axis=1)[:, ::-1])
    found = layer.embed(ids, first_place=1)
    table, places = np.array(layer.tokens.table), np.array(layer.places)
    offsets = layer.tokens.offsets
    expected = places[1 + 1].copy()  # the second latest event of the first row
    for part, token in (("hist_stars", 7), ("hist_item", 8), ("hist_brand", 0)):
        expected += table[offsets[part] + token]
    np.testing.assert_allclose(found[0, 1], _norm(expected, layer.norm), atol=1e-5)

    items = {"item": EVENTS["item"][:, None], "brand": EVENTS["brand"][:, None]}
    candidate = places[0].copy()
    for part, token in (("hist_stars", MASK_ID), ("hist_item", 3), ("hist_brand", 3)):
        candidate += table[offsets[part] + token]
    found = layer.candidates({k: tf.constant(v) for k, v in items.items()})
    np.testing.assert_allclose(found[0, 0], _norm(candidate, layer.norm), atol=1e-5)


def windows(length: int = 5, rows: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """Windows of `length` events at most; the item follows from the brand."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, length + 1, rows)
    there = np.arange(length) < lengths[:, None]
    brand = rng.integers(3, 6, (rows, length))
    stars = rng.integers(3, 8, (rows, length))
    return {
        "hist_stars": np.where(there, stars, 0),
        "hist_item": np.where(there, brand + 2, 0),
        "hist_brand": np.where(there, brand, 0),
    }


def fg_bert(new_items: int = 0, **arguments: Any) -> FgBert:
    """`new_items` are at the end of the vocabulary."""
    of_events = encoder(schema=grown(events_schema(), new_items))
    model = FgBert(grown(events_schema(5), new_items), of_events, **(FG_BERT | arguments))
    model.build()
    return model


def test_groups_are_hidden_independently_and_unknown_tokens_are_not_asked_for() -> None:
    keras.utils.set_random_seed(1)
    model = fg_bert(mask_rate=0.4, last_rate=0.0)
    seen: list[Any] = []
    embed = model.encoder.embed
    model.encoder.embed = lambda ids, **more: seen.append(ids) or embed(ids, **more)
    batch = {name: tf.constant(values) for name, values in windows(rows=400).items()}
    unknown = np.array(batch["hist_brand"])
    unknown[:, 0] = 1
    batch["hist_brand"] = tf.constant(unknown)
    guessed = model(batch, training=True)
    (read,) = seen
    hidden = {part: np.array(read[part]) == MASK_ID for part in model.reads}
    np.testing.assert_array_equal(hidden["hist_item"], hidden["hist_brand"])
    lengths = (np.array(batch["hist_stars"]) != 0).sum(axis=1)
    for part in ("hist_item", "hist_stars"):
        np.testing.assert_array_equal(hidden[part].sum(axis=1), np.floor(0.4 * lengths + 0.5))
    # Of the events whose item is hidden, as many are hidden in the stars as of the others.
    real = np.arange(5) < lengths[:, None]
    both = hidden["hist_item"] & hidden["hist_stars"]
    share = both.sum() / hidden["hist_item"].sum()
    assert share == pytest.approx(hidden["hist_stars"].sum() / real.sum(), abs=0.06)
    _, asked = guessed["hist_brand"]
    of_unknown = hidden["hist_brand"][np.arange(400), lengths - 1]  # the oldest, last of its row
    assert of_unknown.any()
    assert int(np.array(asked).sum()) == int(hidden["hist_brand"].sum() - of_unknown.sum())


def test_the_latest_event_is_hidden_where_it_is_asked_for() -> None:
    model = fg_bert(mask_rate=0.2, last_rate=1.0)
    seen: list[Any] = []
    embed = model.encoder.embed
    model.encoder.embed = lambda ids, **more: seen.append(ids) or embed(ids, **more)
    model({name: tf.constant(values) for name, values in windows().items()}, training=True)
    assert (np.array(seen[0]["hist_item"])[:, 0] == MASK_ID).all()
    assert not (np.array(seen[0]["hist_stars"])[:, 0] == MASK_ID).all()


def test_the_same_is_hidden_each_time_out_of_training() -> None:
    model = shaken(fg_bert())
    batch = {name: tf.constant(values) for name, values in windows().items()}
    first, second = (model(batch)["hist_item"][0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_likelihoods_are_of_a_softmax_over_the_vocabulary() -> None:
    model = shaken(fg_bert())
    vectors, targets = random(2, 3, WIDTH), np.array([[3, 4, 8], [5, 3, 7]])
    found = model._likelihoods("hist_item", vectors, tf.constant(targets, tf.int32), False)
    kernel, bias = (np.array(w) for w in model.to_token["hist_item"].weights)
    offset = model.encoder.tokens.offsets["hist_item"]
    tokens = np.array(model.encoder.tokens.table)[offset + 3 : offset + 9]
    logits = _gelu(vectors @ kernel + bias) @ tokens.T + np.array(model.frequencies["hist_item"])
    for b in range(2):
        for p in range(3):
            expected = np.log(_softmax(logits[b, p])[targets[b, p] - 3])
            np.testing.assert_allclose(found[b, p], expected, atol=1e-5)
    query = np.concatenate([_gelu(vectors[0, 0] @ kernel + bias), [1.0]])
    np.testing.assert_allclose(
        np.array(model.vectors("hist_item")) @ query, logits[0, 0], atol=1e-5
    )


def test_sampled_tokens_leave_the_frequencies_unbiased() -> None:
    """With nothing but biases to learn, their softmax is how often a token occurs, whatever the
    chance that it is drawn: that is what the correction is for."""
    size = 60
    schema = Schema.model_validate(
        {
            "features": [
                {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": size},
                {
                    "name": "hist_item",
                    "kind": "sequence",
                    "side": "user",
                    "shares": "item",
                    "max_length": 4,
                    "vocabulary_size": size,
                },
            ]
        }
    )
    keras.utils.set_random_seed(1)
    model = FgBert(schema, SequenceEncoder(schema, 8, 1, 2, 0.0), 0.2, 0.1, sampled_tokens=20)
    model.build()
    frequency = np.linspace(1, 3, size - 3)  # the rarer in rank are the more frequent
    frequency /= frequency.sum()
    tokens = np.random.default_rng(1).choice(size - 3, (20_000, 1), p=frequency) + 3
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, 400))
    bias = model.frequencies["hist_item"]
    vectors = tf.zeros((20_000, 1, 8))
    model.encoder.tokens.table.assign(model.encoder.tokens.table * 0)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            targets = tf.constant(tokens, tf.int32)
            loss = -tf.reduce_mean(model._likelihoods("hist_item", vectors, targets, True))
        optimizer.apply([tape.gradient(loss, bias.value)], [bias])

    for _ in range(400):
        step()
    learned = _softmax(np.array(bias))
    counted = np.bincount(tokens[:, 0] - 3, minlength=size - 3) / len(tokens)
    # Uncorrected, a token's share would be too small by how often it is drawn: a slope of -1.
    rank = np.arange(size - 3)
    chance = np.log((rank + 2) / (rank + 1))
    slope, _ = np.polyfit(np.log(chance), np.log(learned / counted), 1)
    assert abs(slope) < 0.1
    assert np.abs(np.log(learned / counted)).mean() < 0.25


@pytest.mark.slow
def test_fg_bert_learns_what_follows_from_the_other_parts() -> None:
    keras.utils.set_random_seed(1)
    model = fg_bert(mask_rate=0.3)
    model.compile(LazyAdam(0.02))
    data = tf.data.Dataset.from_tensor_slices((windows(rows=512), np.zeros(512, "float32")))
    model.fit(data.batch(128), epochs=30, verbose=0)
    guessed = model({k: tf.constant(v) for k, v in windows(rows=256, seed=9).items()})

    def mean(part: str) -> float:
        likelihoods, chosen = guessed[part]
        return float(np.array(likelihoods)[np.array(chosen)].mean())

    # The item is one of three, the stars one of five, and nothing tells which.
    assert mean("hist_item") == pytest.approx(np.log(1 / 3), abs=0.12)
    assert mean("hist_stars") == pytest.approx(np.log(1 / 5), abs=0.12)


# --- the student ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "arguments"),
    [
        ("dcn_v2", {}),
        ("din", {}),
        ("deepfm", {"cross_attention": True}),
        ("autoint", {"num_layers": 1}),
    ],
)
def test_folded_scores_are_those_of_rows(backbone: str, arguments: Any) -> None:
    model = student(backbone, **arguments)
    users = {f.name: tf.constant(EVENTS[f.name]) for f in model.schema.side("user", "context")}
    # Among the candidates: of unknown item, of no brand.
    items = {
        "item": np.array([[3, 1, 8], [4, 5, 6], [1, 0, 3], [7, 8, 2]]),
        "brand": np.array([[3, 0, 5], [1, 4, 4], [0, 0, 3], [5, 3, 4]]),
    }
    folded = np.array(
        model.score(model.encode_user(users), {k: tf.constant(v) for k, v in items.items()})
    )
    assert np.isfinite(folded).all()
    assert folded.std() > 0.01
    for n in range(3):
        rows = users | {name: tf.constant(values[:, n]) for name, values in items.items()}
        np.testing.assert_allclose(folded[:, n], model(rows), atol=1e-5)


def test_a_student_begins_as_its_backbone() -> None:
    """What the encoder brings is zero at first, whatever it says, and is learned at once."""
    schema = events_schema()
    plain = backbones.create("dcn_v2", schema.select(["user", "item", "hour"]), embedding_dim=4)
    model = Srp4ctrStudent(schema, plain, shaken(encoder()), **STUDENT)
    model.build()
    others = EVENTS | {name: EVENTS[name][::-1] for name in ("hist_item", "hist_stars")}

    def moves() -> bool:
        scores = [
            np.array(model({name: tf.constant(values) for name, values in rows.items()}))
            for rows in (EVENTS, others)
        ]
        return not np.allclose(*scores, atol=1e-7)

    assert not moves()
    model.compile(LazyAdam(0.05), run_eagerly=True)  # two steps: tracing would be slower
    labels = np.array([1, 0, 1, 0], "float32")
    model.fit(dict(EVENTS), labels, epochs=2, verbose=0)
    assert moves()


def test_the_candidate_looks_as_in_pre_training() -> None:
    """In the first layer, whose events have not seen the candidate, it sees what it would see as
    one of them."""
    model = student(num_layers=1)
    trained = encoder(num_layers=1)
    trained.build()
    shaken(trained)
    model.start_from(trained)
    rows = {name: tf.constant(values) for name, values in EVENTS.items()}
    items = {name: rows[name][:, None] for name in ("item", "brand")}
    found = model._cross_attend(model.encode_user(rows), items, False)
    ids, exists = trained.behaviours.latest_first(rows)
    next_one = {
        "hist_item": items["item"],
        "hist_brand": items["brand"],
        "hist_stars": tf.fill((4, 1), tf.constant(MASK_ID, tf.int64)),
    }
    together = {part: tf.concat([next_one[part], ids[part]], axis=1) for part in ids}
    exists = tf.concat([tf.ones((4, 1), bool), exists], axis=1)
    expected = trained(trained.embed(together, first_place=0), attention_mask(exists)).last[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_events_that_do_not_exist_change_nothing() -> None:
    model = student()
    rows = {name: values.copy() for name, values in EVENTS.items()}
    before = np.array(model({k: tf.constant(v) for k, v in rows.items()}))
    rows["hist_stars"][0, 3], rows["hist_stars"][1, 2] = 5, 6  # of no event
    after = np.array(model({k: tf.constant(v) for k, v in rows.items()}))
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("frozen", few_quick(["none", "embeddings", "all"], "embeddings"))
def test_what_is_frozen_is_not_trained(frozen: Any) -> None:
    model = student(frozen=frozen)
    trained = encoder()
    trained.build()
    model.start_from(shaken(trained))
    np.testing.assert_array_equal(model.encoder.tokens.table, trained.tokens.table)
    np.testing.assert_array_equal(model.blocks[1].inner.kernel, trained.blocks[1].inner.kernel)
    table, places = np.array(model.encoder.tokens.table), np.array(model.encoder.places)
    kernel = np.array(model.encoder.of_key[0].kernel)
    model.compile(LazyAdam(0.05), run_eagerly=True)  # two steps: tracing would be slower
    labels = np.array([1, 0, 1, 0], "float32")
    model.fit({name: values for name, values in EVENTS.items()}, labels, epochs=2, verbose=0)
    moved = [
        not np.allclose(before, np.array(after))
        for before, after in (
            (table, model.encoder.tokens.table),
            (places, model.encoder.places),
            (kernel, model.encoder.of_key[0].kernel),
        )
    ]
    assert (
        moved
        == {
            "none": [True, True, True],
            "embeddings": [False, True, True],
            "all": [False, False, False],
        }[frozen]
    )
    assert bool(model.encoder_variables) == (frozen != "all")
    trainable = {id(variable) for variable in model.trainable_variables}
    of_encoder = [weight for weight in model.encoder.weights if id(weight) in trainable]
    assert bool(of_encoder) == (frozen != "all")


@pytest.mark.parametrize("frozen", ["embeddings", "all"])
def test_what_is_frozen_can_be_exchanged(frozen: Any) -> None:
    """By a later encoder, which knows two items less than the student."""
    later = shaken(built(encoder()))
    model = student(frozen=frozen, refreshed=True, schema=grown(events_schema(), 2))
    before = [np.array(weight) for weight in model.weights]
    model.exchange(later)
    table, tokens = np.array(model.encoder.tokens.table), np.array(later.tokens.table)
    number, offsets = later.schema["hist_item"].num_ids, later.tokens.offsets
    for owner, first in model.encoder.tokens.offsets.items():
        had = later.schema[owner].num_ids
        start = offsets[owner]
        np.testing.assert_array_equal(table[first : first + had], tokens[start : start + had])
    new = model.encoder.tokens.offsets["hist_item"] + number
    np.testing.assert_array_equal(table[new : new + 2], tokens[[offsets["hist_item"] + OOV_ID] * 2])
    data = {id(variable) for variable in model.data_variables}
    exchanged = model.encoder.weights if frozen == "all" else model.encoder.tokens.weights
    assert data == {id(weight) for weight in exchanged}
    for weight, old in zip(model.weights, before, strict=True):
        assert np.array_equal(old, weight) == (id(weight) not in data), weight.path
    # A training that goes on copies what is learned, and leaves what was exchanged.
    again = student(frozen=frozen, refreshed=True, schema=grown(events_schema(), 2))
    own = [np.array(weight) for weight in again.data_variables]
    carry_on(again, model)
    for weight, values in zip(again.data_variables, own, strict=True):
        np.testing.assert_array_equal(weight, values)
    np.testing.assert_array_equal(again.blocks[0].inner.kernel, model.blocks[0].inner.kernel)
    with pytest.raises(ValueError, match="of the student's encoder's make"):  # it knows more
        student(frozen=frozen).exchange(built(encoder(schema=grown(events_schema(), 2))))


def built(layer: Any) -> Any:
    layer.build()
    return layer


def test_pre_training_goes_on_with_new_tokens() -> None:
    earlier = shaken(fg_bert())
    later = fg_bert(new_items=2)
    initial = np.array(later.encoder.tokens.rows("hist_item", later.schema["item"].num_ids - 2))
    later.start_from(earlier)
    for part in later.encoder.parts:
        had = earlier.schema[part].num_ids
        ids = np.arange(had)
        np.testing.assert_array_equal(
            later.encoder.tokens.rows(part, ids), earlier.encoder.tokens.rows(part, ids)
        )
        known = np.array(earlier.frequencies[part])
        found = np.array(later.frequencies[part])
        np.testing.assert_array_equal(found[: len(known)], known)
        assert (found[len(known) :] == min(known.min(), 0)).all()
    new = later.schema["item"].num_ids - 2
    assert new == earlier.schema["item"].num_ids
    np.testing.assert_array_equal(later.encoder.tokens.rows("hist_item", new), initial)
    # Windows without new items are predicted as before, but for the new items' share.
    batch = {name: tf.constant(values) for name, values in windows().items()}
    found, before = (model(batch)["hist_stars"][0] for model in (later, earlier))
    np.testing.assert_allclose(found, before, atol=1e-4)


def test_a_student_is_saved_whole(tmp_path: Any) -> None:
    model = student("din")
    rows = {name: tf.constant(values) for name, values in EVENTS.items()}
    expected = np.array(model(rows))
    model.save(tmp_path / "student.keras")
    found = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(found(rows), expected, atol=1e-6)


def test_the_pre_trained_encoder_is_saved_with_its_heads(tmp_path: Any) -> None:
    model = shaken(fg_bert(sampled_tokens=3))
    batch = {name: tf.constant(values) for name, values in windows().items()}
    expected = np.array(model(batch)["hist_item"][0])
    model.save(tmp_path / "encoder.keras")
    found = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_allclose(found(batch)["hist_item"][0], expected, atol=1e-6)


@pytest.mark.slow
def test_all_of_it_learns_in_lower_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        makes = [student("din"), fg_bert(), fg_bert(sampled_tokens=3)]
    finally:
        keras.config.set_dtype_policy("float32")
    rows = (EVENTS, np.array([1, 0, 1, 0], "float32"))
    for model, data in zip(makes, (rows, *[(windows(), np.zeros(64, "float32"))] * 2), strict=True):
        model.compile(LazyAdam(0.01))
        found = model.train_on_batch(*data)
        assert np.isfinite(found).all()


def test_a_student_takes_no_encoder_of_another_make() -> None:
    other = encoder(num_layers=1)
    other.build()
    with pytest.raises(ValueError, match="of the student's encoder's make"):
        student().start_from(other)


def test_a_student_that_would_carry_nothing() -> None:
    schema = events_schema()
    with pytest.raises(ValueError, match="nothing is carried"):
        Srp4ctrStudent(
            schema,
            backbones.create("lr", schema.select(["user"])),
            encoder(),
            **(STUDENT | {"cross_attention": False, "num_queries": 0}),
        )
