"""Embeddings of items without training rows, from the losses to a served student."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from tests.conftest import world_config
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr import backbones
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.raw_rows import raw_rows
from tfctr.frameworks.cold_items import ColdItemsStudent, contrast, regression
from tfctr.frameworks.vectors import VectorsStudent
from tfctr.metrics import auc
from tfctr.optimizers import LazyAdam
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, Schema
from tfctr.serving import Client, Server, export
from tfctr.stages import Run

RNG = np.random.default_rng(2)
SOURCE = {"format": "world", "users": 60, "items": 50, "events": 3_000, "seed": 3}
PLAIN = ["user_id", "item_id", "category"]


def student(backbone: Any, feature: str = "item", width: int = 0, **changes: Any) -> Any:
    made = unbuilt(backbone, feature, width, **changes)
    made.build()
    return made


def unbuilt(backbone: Any, feature: str, width: int, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "attributes": (),
        "hidden_units": (8,),
        "dropout": 0.0,
        "rate": 0.3,
        "alignment": "regression",
        "weight": 0.1,
        "temperature": 0.1,
    }
    return ColdItemsStudent(backbone, feature, width, **values | changes)


def test_regression_is_the_mean_distance_of_rows_that_count() -> None:
    made, trained = RNG.normal(size=(2, 6, 3)).astype("float32")
    weights = np.array([1, 1, 0, 1, 1, 0], "float32")
    expected = ((made - trained) ** 2).sum(1)[weights > 0].mean()
    np.testing.assert_allclose(regression(made, trained, weights), expected, rtol=1e-5)
    assert float(regression(made, trained, 0 * weights)) == 0


def test_contrast_is_that_of_a_loop() -> None:
    made, trained = RNG.normal(size=(2, 6, 3)).astype("float32")
    ids, weights = np.array([3, 4, 3, 5, 6, 7]), np.array([1, 1, 1, 1, 0, 1], "float32")
    found = []
    for i in np.flatnonzero(weights):
        scores = {}
        for j in range(6):
            if j == i or (ids[j] != ids[i] and weights[j]):
                norms = np.linalg.norm(made[i]) * np.linalg.norm(trained[j])
                scores[j] = made[i] @ trained[j] / norms / 0.2
        found.append(np.log(np.exp(list(scores.values())).sum()) - scores[i])
    loss = contrast(made, trained, weights, ids, 0.2)
    np.testing.assert_allclose(loss, np.mean(found), rtol=1e-4)


def features(*names: str) -> dict[str, np.ndarray]:
    return {name: RNG.integers(1, 7, 5) for name in names}


SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "user", "kind": "categorical", "side": "user", "vocabulary_size": 7},
            {"name": "brand", "kind": "categorical", "side": "item", "vocabulary_size": 7},
            {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 7},
        ]
    }
)


@pytest.mark.parametrize("backbone", ["dcn_v2", "deepfm"])
def test_only_new_items_have_an_embedding_that_is_made(backbone: str) -> None:
    inner = backbones.create(backbone, SCHEMA, embedding_dim=4, hidden_units=[5])
    made = student(inner, width=3, attributes=["brand"])
    for i, weight in enumerate(made.trainable_variables):
        weight.assign(np.random.default_rng(i).normal(size=weight.shape))
    made.vectors.assign(RNG.normal(size=made.vectors.shape))
    made.scale.assign(0.5)
    is_new = np.array([1, 1, 1, 0, 1, 0, 0], bool)
    made.is_new.assign(is_new)
    rows = features("user", "brand", "item")
    rows["item"] = np.array([3, 4, OOV_ID, 5, 6])
    fields, plain = np.array(made.embed(rows)), np.array(made.backbone.embed(rows))
    np.testing.assert_array_equal(fields[:, :2], plain[:, :2])
    for row, id_ in enumerate(rows["item"]):
        if not is_new[id_]:
            np.testing.assert_array_equal(fields[row, 2], plain[row, 2])
            continue
        x = np.r_[0.5 * np.array(made.vectors)[id_], plain[row, 1]]
        for layer, activation in (
            (made.hidden[0], lambda x: np.maximum(x, 0)),
            (made.to_embedding, lambda x: x),
        ):
            x = activation(x @ np.array(layer.kernel) + np.array(layer.bias))
        np.testing.assert_allclose(fields[row, 2], x, rtol=1e-4, atol=1e-5)
    items = {name: rows[name][None] for name in ("brand", "item")}
    user = {"user": rows["user"][:1]}
    together = made(
        {n: np.repeat(v, 5) for n, v in user.items()} | {n: v[0] for n, v in items.items()}
    )
    np.testing.assert_allclose(made.score(made.encode_user(user), items)[0], together, atol=1e-5)


def test_in_training_a_share_of_the_items_counts_as_new() -> None:
    made = student(backbones.create("dnn", SCHEMA, embedding_dim=4, hidden_units=[5]), width=3)
    rows = {name: np.full(4000, 4) for name in ("user", "brand", "item")}
    plain = np.array(made.backbone.embed(rows))[:, 2]
    fields = np.array(made.embed(rows, training=True))[:, 2]
    share = (np.abs(fields - plain).max(1) > 1e-8).mean()
    assert 0.25 < share < 0.35
    (loss,) = made.losses
    assert float(loss) > 0


@pytest.mark.parametrize("alignment", ["regression", "contrast"])
def test_items_that_training_never_saw_are_ranked_by_their_vectors(alignment: str) -> None:
    described = [
        {"name": "user", "kind": "categorical", "side": "user", "vocabulary_size": 6},
        {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 400},
    ]
    schema = Schema.model_validate({"features": described})
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    number = schema["item"].num_ids
    vectors = rng.normal(size=(number, 8)).astype("float32")
    taste = rng.normal(size=8) * 2
    inner = backbones.create("dnn", schema, embedding_dim=8, hidden_units=(16,))
    made = student(inner, width=8, alignment=alignment, hidden_units=(16,))
    half = number // 2
    made.vectors.assign(vectors)
    made.is_new.assign(~np.isin(np.arange(number), np.arange(FIRST_TOKEN_ID, half)))
    items = rng.integers(FIRST_TOKEN_ID, half, 20_000)
    chances = 1 / (1 + np.exp(-(vectors @ taste)))
    clicks = (rng.random(len(items)) < chances[items]).astype("float32")
    rows = {"user": rng.integers(FIRST_TOKEN_ID, 9, len(items)), "item": items}
    made.compile(LazyAdam(0.01))
    made.fit(rows, clicks, batch_size=256, epochs=3, verbose=0)
    for first, last in ((FIRST_TOKEN_ID, half), (half, number)):
        some = np.arange(first, last)
        asked = {"user": np.full(len(some), 4), "item": some}
        clicked = (rng.random(len(some)) < chances[some]).astype("float32")
        assert auc(clicked, made.predict(asked, verbose=0)) > 0.85


def write_run(folder: Path, **changes: Any) -> Path:
    data = world_config(source=SOURCE).model_dump(mode="json", exclude_none=True)
    run = {
        "name": "student",
        "data": "data.yaml",
        "frameworks": [
            {
                "name": "cold_items",
                "feature": "item_id",
                "vectors": {
                    "name": "titles",
                    "files": "titles.parquet",
                    "in_request": "title_vector",
                },
                "attributes": ["category"],
                "least_rows": 40,
            }
            | changes
        ],
        "model": {"backbone": "dcn_v2", "features": PLAIN, "embedding_dim": 4, "hidden_units": [8]},
        "training": {"batch_size": 512, "epochs": 1, "optimizer": {"learning_rate": 0.01}},
        "export": {"directory": str(folder / "saved_models")},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    (folder / "student.yaml").write_text(yaml.safe_dump(run))
    items = np.arange(50)[np.arange(50) % 5 > 0]
    vectors = np.random.default_rng(5).normal(size=(len(items), 6)).astype("float32")
    table = pa.table({"item_id": items, "vector": [*vectors]})
    pq.write_table(table, folder / "titles.parquet")
    return folder / "student.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("cold")
    made = Run(load_run(write_run(folder)), folder / "work", Console(quiet=True))
    made.export()
    return made


def test_a_student_is_served_as_it_is_evaluated(run: Run) -> None:
    model = run.load_model()
    train = Dataset.open(run.data_folder).columns("train", ["item_id"])["item_id"]
    counts = np.bincount(train, minlength=model.is_new.shape[0])
    few = counts < 40
    few[:FIRST_TOKEN_ID] = True
    np.testing.assert_array_equal(model.is_new, few)
    assert 5 < few.sum() < len(few)
    vectors = np.array(model.vectors)[FIRST_TOKEN_ID:] * np.array(model.scale)
    vectors = vectors[vectors.any(axis=1)]
    assert np.mean(vectors**2) == pytest.approx(1, rel=1e-3)
    assert_served_as_evaluated(run, 20, model)


def test_a_request_s_vector_counts_as_if_it_were_in_the_table(run: Run, tmp_path: Path) -> None:
    data, later = Dataset.open(run.data_folder), run.load_model()
    table, is_new = np.array(later.vectors), np.array(later.is_new)
    tokens = [int(token) for token in data.vocabulary_file("item_id").read_text().split()]
    id_of = {token: id_ for id_, token in enumerate(tokens, FIRST_TOKEN_ID)}
    new = [token for token in tokens if is_new[id_of[token]] and not table[id_of[token]].any()]
    described = [t for t in tokens if is_new[id_of[t]] and table[id_of[t]].any()]
    known = [t for t in tokens if not is_new[id_of[t]] and not table[id_of[t]].any()]
    stranger = 9999
    asked = [new[0], stranger, described[0], known[0]]
    vectors = np.random.default_rng(9).normal(size=(len(asked), 6)).astype("float32")
    table[id_of[new[0]]], table[OOV_ID] = vectors[:2]
    later.vectors.assign(table)
    export(later, data, tmp_path / "later")
    row = raw_rows(run.config.data, data, "test", 1).to_pylist()[0]
    user = {"user_id": row["user_id"]}
    candidates = {"item_id": asked, "category": [row["category"]] * len(asked)}
    with (
        Server(
            {"student": run.export_folder, "later": tmp_path / "later"}, grpc_port=0, rest_port=0
        ) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "student") as client,
        Client(f"127.0.0.1:{server.grpc_port}", "later") as of_later,
    ):
        found = client.rank(user, candidates | {"title_vector": vectors})
        np.testing.assert_array_equal(found, of_later.rank(user, candidates))
        changed = np.abs(found - client.rank(user, candidates)) > 1e-6
        np.testing.assert_array_equal(changed, [True, True, False, False])


def test_two_methods_may_read_one_vector_of_a_request() -> None:
    def cold() -> Any:
        plain = backbones.create("dcn_v2", SCHEMA, embedding_dim=4, hidden_units=[5])
        return unbuilt(plain, "item", 3, attributes=["brand"], in_request="title")

    inner = cold()
    made = VectorsStudent(SCHEMA, inner, ["item"], [3], [2], ["title"])
    made.build()
    for i, weight in enumerate(made.trainable_variables):
        weight.assign(np.random.default_rng(i).normal(size=weight.shape))
    assert [f.name for f in made.served_schema] == ["user", "brand", "item", "title"]
    rows = features("user", "brand", "item") | {"item": np.full(5, OOV_ID)}
    vectors = RNG.normal(size=(5, 3)).astype("float32")
    plain, found = made(rows), made(rows | {"title": vectors})
    assert np.abs(np.array(found - plain)).min() > 1e-4
    user = {"user": rows["user"][:1]}
    items = {name: rows[name][None] for name in ("brand", "item")} | {"title": vectors[None]}
    alone = {n: np.repeat(v, 5) for n, v in user.items()} | {n: v[0] for n, v in items.items()}
    np.testing.assert_allclose(made.score(made.encode_user(user), items)[0], made(alone), atol=1e-5)
    # As if each vector were that of the id, in both tables.
    for row in range(5):
        for variable in (inner.vectors, made.tables[0]):
            table = np.zeros(variable.shape)
            table[OOV_ID] = vectors[row]
            variable.assign(table)
        one = {name: values[row : row + 1] for name, values in rows.items()}
        np.testing.assert_allclose(made(one)[0], found[row], rtol=1e-5)
    again = type(made).from_config(made.get_config())
    assert again.served_schema == made.served_schema
    with pytest.raises(ValueError, match="twice: vectors of 2 numbers of the user, and of 3 of"):
        VectorsStudent(SCHEMA, cold(), ["user"], [2], [1], ["title"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feature": "user_id"}, "found 'user_id'; it must be a categorical feature of the item's"),
        ({"attributes": ["item_id"]}, "found 'item_id'; the backbone's other features .* category"),
        ({"attributes": ["age_group"]}, "found 'age_group'"),
        ({"vectors": None, "attributes": []}, "give vectors, or attributes, or both"),
        (
            {"vectors": {"name": "titles", "files": "titles.parquet", "in_request": "price"}},
            "vectors.in_request: found 'price', which is a feature of the data",
        ),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load_run(write_run(tmp_path, **changes))
