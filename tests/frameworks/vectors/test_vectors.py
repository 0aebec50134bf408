"""Vectors from elsewhere, from files to a served student."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from tensorflow_serving.apis import predict_pb2
from typer.testing import CliRunner

from beam_pipelines.score import score
from tests.conftest import world_config
from tests.frameworks.toy.config import Toy
from tests.serving.batching import BASIC, assert_merged_is_each
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr import backbones
from tfctr.cli import app
from tfctr.config import ConfigError, load_run
from tfctr.config.vectors import VectorTable
from tfctr.data import Dataset
from tfctr.data.manifest import DataError
from tfctr.data.raw_rows import raw_rows
from tfctr.frameworks.vectors import VectorsStudent
from tfctr.metrics import auc
from tfctr.optimizers import LazyAdam
from tfctr.schema import FIRST_TOKEN_ID, Schema
from tfctr.serving import Client, Server, export
from tfctr.serving.errors import ServingError
from tfctr.serving.warmup import inputs_of, read_warmup
from tfctr.stages import Run, build
from tfctr.stages.student import create_parts, parts_of
from tfctr.stages.vectors import VectorsById

SOURCE = {"format": "world", "users": 60, "items": 50, "events": 4_000, "seed": 3}
PLAIN = ["user_id", "age_group", "category"]
ITEMS = np.arange(50)
TITLES = {"name": "titles", "feature": "item_id", "files": "titles-*.parquet", "fields": 2}
IMAGES = {"name": "images", "feature": "category", "files": "images.parquet", "key": "of"}


def write_vectors(folder: Path) -> dict[int, np.ndarray]:
    """Vectors of the items but every fifth, and of a stranger, in two files of several pieces; and
    of categories, as lists of one number more each."""
    rng = np.random.default_rng(5)
    items = np.append(rng.permutation(ITEMS[ITEMS % 5 > 0]), 9999)
    vectors = rng.normal(2, 3, (len(items), 6)).astype("float32")
    for n, part in enumerate(np.array_split(np.arange(len(items)), 2)):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors[part].ravel()), 6)
        table = pa.table({"item_id": items[part], "vector": lists})
        pq.write_table(table, folder / f"titles-{n}.parquet", row_group_size=7)
    images = {"of": ["Shoes", "Books"], "vector": [[1, 0, 2], [0, 1, 5]]}
    pq.write_table(pa.table(images), folder / "images.parquet")
    return dict(zip(items.tolist(), vectors, strict=True))


def write_configs(folder: Path, *tables: dict[str, Any]) -> Path:
    data = world_config(source=SOURCE).model_dump(mode="json", exclude_none=True)
    student = {
        "name": "student",
        "data": "data.yaml",
        "frameworks": [{"name": "vectors", "tables": [*tables]}],
        "model": {
            "backbone": "dcn_v2",
            "features": PLAIN,
            "embedding_dim": 4,
            "hidden_units": [8],
        },
        "training": {"batch_size": 512, "epochs": 1, "optimizer": {"learning_rate": 0.01}},
        "export": {"directory": str(folder / "saved_models")},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    (folder / "student.yaml").write_text(yaml.safe_dump(student))
    return folder / "student.yaml"


USERS = {
    "name": "users",
    "feature": "user_id",
    "files": "users.npz",
    "in_request": "user_vector",
}
HOURS = {"name": "hours", "feature": "hour", "files": "hours.npz", "fields": 2}


@pytest.fixture(scope="module")
def of_all_sides(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Tables of the item, of the user and of the context, in this order."""
    folder = tmp_path_factory.mktemp("sides")
    write_vectors(folder)
    rng = np.random.default_rng(6)
    for name, feature, tokens in (("users", "user_id", 40), ("hours", "hour", 20)):
        vectors = rng.normal(size=(tokens, 5)).astype("float32")
        np.savez(folder / f"{name}.npz", **{feature: np.arange(tokens), "vector": vectors})
    path = write_configs(folder, TITLES | {"in_request": "title_vector"}, USERS, HOURS)
    made = Run(load_run(path), folder / "work", Console(quiet=True))
    made.export()
    return made


def test_vectors_of_users_are_computed_once_a_request(of_all_sides: Run) -> None:
    model = of_all_sides.load_model()
    data = Dataset.open(of_all_sides.data_folder)
    rows = {k: v[:30] for k, v in data.columns("test", list(model.reads)).items()}
    of_item = set(model.reads_of_item) - {"title_vector"}
    assert of_item == {"item_id", "category"}
    once = {name: values[:3] for name, values in rows.items() if name not in of_item}
    user = model.encode_user(once)
    fields = np.array(model.embed(rows))
    start = len(PLAIN)
    np.testing.assert_allclose(user["user_vectors"], fields[:3, start : start + 3], atol=1e-6)
    items = {name: rows[name].reshape(3, 10) for name in of_item}
    unfolded = {name: np.repeat(values, 10, axis=0) for name, values in once.items()}
    unfolded |= {name: rows[name] for name in of_item}
    scores = np.array(model.score(user, items)).ravel()
    np.testing.assert_allclose(scores, model(unfolded), atol=1e-5)
    other = {name: np.roll(values, 1, axis=0) for name, values in user.items()}
    assert np.abs(np.array(model.score(other, items)).ravel() - scores).max() > 1e-3


def test_vectors_of_users_are_served(of_all_sides: Run) -> None:
    assert_served_as_evaluated(of_all_sides, 20)


def test_a_request_s_vector_counts_as_if_it_were_in_the_table(
    of_all_sides: Run, tmp_path: Path
) -> None:
    data = Dataset.open(of_all_sides.data_folder)
    rows = raw_rows(of_all_sides.config.data, data, "test", 40).to_pylist()
    new = sorted({row["item_id"] for row in rows if row["item_id"] % 5 == 0})
    vectors = np.random.default_rng(9).normal(size=(len(new), 6)).astype("float32")

    # Another export of the same weights, whose table has the vectors.
    later = of_all_sides.load_model()
    table = np.array(later.tables[0])
    tokens = [int(token) for token in data.vocabulary_file("item_id").read_text().split()]
    ids = [FIRST_TOKEN_ID + tokens.index(item) for item in new]
    assert not table[ids].any()
    table[ids] = vectors
    later.tables[0].assign(table)
    export(later, data, tmp_path / "later")

    items = [feature.name for feature in later.served_schema.side("item")]
    user = {n: v for n, v in rows[0].items() if n in later.reads and n not in items}
    known = next(row for row in rows if row["item_id"] % 5)
    asked = [next(row for row in rows if row["item_id"] == item) for item in new] + [known]
    candidates = {name: [row.get(name) for row in asked] for name in items}
    given = candidates | {"title_vector": [*vectors.tolist(), [7.0] * 6]}
    served = {"student": of_all_sides.export_folder, "later": tmp_path / "later"}
    with (
        Server(served, grpc_port=0, rest_port=0) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "student") as client,
        Client(f"127.0.0.1:{server.grpc_port}", "later") as of_later,
    ):
        expected = of_later.rank(user, candidates)
        found, without = client.rank(user, given), client.rank(user, candidates)
        np.testing.assert_array_equal(found, expected)
        assert np.abs(found - without)[:-1].min() > 1e-5
        assert found[-1] == without[-1]  # a known item keeps the table's vector
        columns = {name: [value] * len(asked) for name, value in user.items()}
        np.testing.assert_array_equal(
            client.predict(columns | given), of_later.predict(columns | candidates)
        )
        # A user out of vocabulary, and what is missing in part.
        stranger = user | {"user_id": 9999}
        of_user = client.rank(stranger | {"user_vector": [1, 2, 3, 4, 5]}, candidates)
        assert np.abs(of_user - client.rank(stranger, candidates)).min() > 1e-5
        for wrong, says in (
            ([1.0] * 5, "takes a vector of 6 numbers, or None; found 5 in row 0"),
            ([1.0] * 5 + [None], "takes a vector of 6 finite numbers, or None; found None in row"),
        ):
            with pytest.raises(ValueError, match=f"'title_vector' {says}"):
                client.rank(user, candidates | {"title_vector": [wrong] + [None] * len(new)})
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "student", "rank"
        for log in read_warmup(of_all_sides.export_folder / "1"):
            signature, inputs = inputs_of(log)
            if signature == "rank":
                inputs["title_vector"] = inputs["title_vector"][..., :5]
                for name, values in inputs.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        with pytest.raises(ServingError, match=r"'title_vector': found shape \[1, 100, 5\]"):
            client.ask(request)


def test_a_batch_of_rows_is_scored_by_the_tables_alone(of_all_sides: Run, tmp_path: Path) -> None:
    data, model = Dataset.open(of_all_sides.data_folder), of_all_sides.load_model()
    rows = raw_rows(of_all_sides.config.data, data, "test", 20).to_pylist()
    kept = [{name: row[name] for name in model.reads} for row in rows]
    table = pa.Table.from_pylist([row | {"title_vector": [1.0] * 6} for row in kept])
    pq.write_table(table, tmp_path / "rows.parquet")
    found = score(
        str(of_all_sides.export_folder), [str(tmp_path / "rows.parquet")], str(tmp_path / "scores")
    )
    assert found["ignored"] == ["title_vector"]
    scores = pq.read_table(tmp_path / "scores" / "part-00000.parquet")["score"].to_numpy()
    logits = model.predict(data.test(8192, features=model.reads), verbose=0)[:20]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_requests_with_vectors_can_be_merged(of_all_sides: Run) -> None:
    assert_merged_is_each(of_all_sides.export_folder / "1", BASIC)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("vectors")
    write_vectors(folder)
    path = write_configs(folder, TITLES, IMAGES)
    made = Run(load_run(path), folder / "work", Console(file=io.StringIO(), width=200))
    made.export()
    return made


def test_the_table_has_each_token_s_vector_at_its_id(run: Run, tmp_path: Path) -> None:
    given = write_vectors(tmp_path)
    table = np.load(run.before["vectors"]["titles"].path)
    data = Dataset.open(run.data_folder)
    tokens = [int(token) for token in data.vocabulary_file("item_id").read_text().split()]
    known = [token for token in tokens if token in given]
    assert 30 < len(known) < len(tokens)
    scale = np.sqrt(np.mean(np.square([given[token] for token in known], dtype=np.float64)))
    assert table.shape == (len(tokens) + FIRST_TOKEN_ID, 6)
    assert not table[:FIRST_TOKEN_ID].any()
    for id_, token in enumerate(tokens, FIRST_TOKEN_ID):
        expected = given[token] if token in given else np.zeros(6)
        np.testing.assert_array_equal(table[id_], expected)
    np.testing.assert_allclose(run.load_model().scales[0], 1 / scale, rtol=1e-5)
    said = run.console.file.getvalue()  # type: ignore[attr-defined]
    counts = f"{len(known)} of {len(tokens)} item_id; {len(given) - len(known)} are of no token"
    assert f"vectors of 6 numbers for {counts}" in said


def test_training_leaves_the_tables_as_they_are_and_a_server_has_them(run: Run) -> None:
    model = run.load_model()
    for variable, stage in zip(model.tables, run.before["vectors"].values(), strict=True):
        np.testing.assert_array_equal(variable, np.load(stage.path))
        assert abs(np.mean(np.square(variable[np.any(variable, axis=1)])) - 1) > 0.1
    assert not any(variable.trainable for variable in (*model.tables, *model.scales))
    assert "item_id" in model.reads
    assert_served_as_evaluated(run, 20, model)


def test_fields_against_numpy(run: Run) -> None:
    model = run.load_model()
    data = Dataset.open(run.data_folder)
    rows = {k: v[:50] for k, v in data.columns("test", list(model.reads)).items()}
    fields = np.array(model.embed(rows))
    plain = np.array(model.backbone.embed(rows))
    np.testing.assert_array_equal(fields[:, : len(PLAIN)], plain)
    start = len(PLAIN)
    for i, (name, number) in enumerate((("item_id", 2), ("category", 1))):
        table, kernel = np.array(model.tables[i]), np.array(model.to_fields[i].kernel)
        for row, id_ in enumerate(rows[name]):
            vector = table[id_] * np.array(model.scales[i])
            flat = vector @ kernel if vector.any() else np.array(model.without[i])
            found = fields[row, start : start + number]
            np.testing.assert_allclose(found, flat.reshape(number, -1), atol=1e-5)
        start += number
    assert fields.shape[1] == start
    assert any(not np.array(model.tables[0])[id_].any() for id_ in rows["item_id"])


def test_other_files_are_another_training(run: Run) -> None:
    folder = run.work.parent
    again = Run(load_run(folder / "student.yaml"), run.work, Console(quiet=True))
    assert again.trained.is_done()
    path = folder / "images.parquet"
    kept = path.read_bytes()
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    assert not again.trained.is_done()
    path.write_bytes(kept)
    assert again.trained.is_done()


def command(*args: Any) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "300"})


def test_later_vectors_in_a_new_version_with_the_same_weights(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.work.parent, tmp_path, dirs_exist_ok=True)
    path, work = write_configs(tmp_path, TITLES, IMAGES), tmp_path / "work"
    run = Run(load_run(path), work, Console(quiet=True))
    model, kept = run.load_model(), run.trained.path.read_bytes()
    scale = float(model.scales[0].numpy())

    # Larger numbers, and vectors of items that had none: 0, 5, 10, ...
    rng = np.random.default_rng(8)
    vectors = rng.normal(0, 20, (50, 6)).astype("float32")
    for old in tmp_path.glob("titles-*.parquet"):
        old.unlink()
    later = pa.table({"item_id": ITEMS, "vector": vectors.tolist()})
    pq.write_table(later, tmp_path / "titles-later.parquet")
    assert command("prepare", path, "--work", work).exit_code == 0  # writes the tables again
    ran = command("refresh", path, "--work", work)
    assert ran.exit_code == 0, ran.output
    assert f"SavedModel: {run.export_folder / '2'}" in ran.output
    assert run.trained.path.read_bytes() == kept

    data = Dataset.open(run.data_folder)
    tokens = [int(token) for token in data.vocabulary_file("item_id").read_text().split()]
    table = np.concatenate([np.zeros((FIRST_TOKEN_ID, 6), "float32"), vectors[tokens]])
    rows = {k: v[:50] for k, v in data.columns("test", list(model.reads)).items()}
    before = model.predict(rows, verbose=0)
    model.tables[0].assign(table)
    assert np.abs(model.predict(rows, verbose=0) - before).max() > 0.01
    assert float(model.scales[0].numpy()) == scale
    assert_served_as_evaluated(run, 20, model, version=2)

    assert "refresh is done" in command("refresh", path, "--work", work).output
    pq.write_table(
        pa.table({"item_id": ITEMS, "vector": vectors[:, :5].tolist()}),
        tmp_path / "titles-later.parquet",
    )
    ran = command("refresh", path, "--work", work)
    assert ran.exit_code == 1
    assert "vectors of 5 numbers, and the student was trained with vectors of 6; tra" in ran.output
    assert not (run.export_folder / "3").exists()


@pytest.mark.parametrize("vectors_are_outside", [True, False])
def test_the_part_of_each_method_in_a_student(run: Run, vectors_are_outside: bool) -> None:
    methods = [Toy(name="toy"), *run.config.frameworks]
    frameworks = tuple(methods if vectors_are_outside else reversed(methods))
    config = run.config.model_copy(update={"frameworks": frameworks})
    schema = Dataset.open(run.data_folder).schema
    student, parts = create_parts(config, schema, run.before)
    found = parts_of(config, student)
    assert [method for method, _ in found] == [*frameworks]
    assert all(a is b for (_, a), (_, b) in zip(found, parts, strict=True))
    (of_vectors,) = (part for method, part in found if method.name == "vectors")
    assert isinstance(of_vectors, VectorsStudent)


def test_a_student_that_starts_from_another_keeps_its_scale(run: Run, tmp_path: Path) -> None:
    given = write_vectors(tmp_path)
    path = write_configs(tmp_path, TITLES, IMAGES)
    later = pa.table({"item_id": [*given], "vector": [(v * 7).tolist() for v in given.values()]})
    pq.write_table(later, tmp_path / "titles-0.parquet")
    (tmp_path / "titles-1.parquet").unlink()
    content = yaml.safe_load(path.read_text())
    content |= {"name": "later", "starts_from": str(run.trained.path)}
    path.write_text(yaml.safe_dump(content))
    made = Run(load_run(path), tmp_path / "work", Console(quiet=True))
    made.train()
    found, before = made.load_model(), run.load_model()
    for scale, kept in zip(found.scales, before.scales, strict=True):
        assert float(scale.numpy()) == float(kept.numpy())
    np.testing.assert_allclose(found.tables[0], 7 * before.tables[0].numpy(), rtol=1e-5)


def test_what_cannot_be_refreshed(run: Run, tmp_path: Path) -> None:
    folder, work = run.work.parent, run.work
    for args, says in (
        (["--log", folder / "data.yaml"], "student: --log: none of its methods reads a log"),
        (["--add"], "student: --add: adds the events of --log, which is not given"),
    ):
        ran = command("refresh", folder / "student.yaml", "--work", work, *args)
        assert ran.exit_code == 1
        assert ran.output.startswith(says)
    content = yaml.safe_load((folder / "student.yaml").read_text())
    other = content | {"training": content["training"] | {"seed": 2}}
    plain = {key: value for key, value in content.items() if key != "frameworks"}
    for name, changed, says in (
        ("other", other, "trained with another config or other data; run `tfctr train` again"),
        ("plain", plain, "student: frameworks: none has data that can be refreshed"),
    ):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(changed))
        ran = command("refresh", folder / f"{name}.yaml", "--work", work)
        assert ran.exit_code == 1
        assert says in ran.output
    ran = command("refresh", folder / "student.yaml", "--work", tmp_path)
    assert "no trained model; run `tfctr train` first" in ran.output


def test_items_that_training_never_saw_are_ranked_by_their_vectors() -> None:
    features = [
        {"name": "user", "kind": "categorical", "side": "user", "vocabulary_size": 6},
        {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 400},
    ]
    schema = Schema.model_validate({"features": features})
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(schema["item"].num_ids, 8)).astype("float32")
    taste = rng.normal(size=8) * 2
    backbone = backbones.create("dnn", schema.select(["user"]), embedding_dim=8, hidden_units=(16,))
    student = VectorsStudent(schema, backbone, ["item"], [8], [1])
    student.build()
    student.tables[0].assign(vectors)
    half = schema["item"].num_ids // 2
    rows = {"user": rng.integers(3, 6, 8000), "item": rng.integers(FIRST_TOKEN_ID, half, 8000)}
    clicks = rng.random(8000) < 1 / (1 + np.exp(-vectors[rows["item"]] @ taste))
    student.compile(LazyAdam(0.01))
    student.fit(rows, clicks.astype("float32"), epochs=5, batch_size=200, verbose=0)
    new = {"user": rng.integers(3, 6, 4000), "item": rng.integers(half, half * 2, 4000)}
    chance = 1 / (1 + np.exp(-vectors[new["item"]] @ taste))
    labels = (rng.random(4000) < chance).astype("float32")
    best, found = auc(labels, chance), auc(labels, student.predict(new, verbose=0))
    assert best - 0.01 < found


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"item_id": [1, 1], "vector": [[1.0], [2.0]]}, r"column 'item_id': 1 has two vectors"),
        ({"item_id": [1, 2], "vector": [[1.0], [2.0, 3.0]]}, r"row 1 has 2 numbers, and not all"),
        ({"item_id": [1], "vector": [[np.nan]]}, r"row 0 has a number that is not finite"),
        ({"item_id": [1, 2], "vector": [[1.0], [1e60]]}, r"row 1 has a number that is not finite"),
        ({"item_id": [1], "vector": [1.0]}, r"'vector' holds double, and lists of numbers are"),
        ({"item_id": ["x"], "vector": [[1.0]]}, r"row 0: found 'x': not a 64-bit integer"),
        ({"item_id": [None, 1], "vector": [[1.0], [1.0]]}, r"row 0: found None"),
        ({"item_id": [-7], "vector": [[1.0]]}, r"none of the 1 tokens is one of item_id, which"),
        ({"id": [1], "vector": [[1.0]]}, r"no column 'item_id'; columns: id, vector"),
    ],
)
def test_files_that_do_not_fit(
    run: Run, columns: dict[str, Any], says: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "vectors.parquet")
    config = VectorTable.model_validate({"name": "bad", "files": str(tmp_path / "vectors.parquet")})
    with pytest.raises((ConfigError, DataError), match=says):
        build(VectorsById(config, "item_id", run.dataset, tmp_path), Console(quiet=True))
    assert not (tmp_path / "bad" / "vectors.npy").exists()


ARRAYS = {"item_id": np.arange(3), "vector": np.ones((3, 2), np.float16)}


@pytest.mark.parametrize(
    ("arrays", "more", "says"),
    [
        (ARRAYS, {"files": "vector.npy"}, r"bad: keys: not given; .*vector\.npy has no tokens, so"),
        (ARRAYS, {"files": "all.npz", "keys": "item_id.npy"}, r"one \.npy file of tokens belongs"),
        (
            ARRAYS,
            {"files": "vector.npy", "keys": "item_id.npy", "key": "id"},
            r"key: names a column or an array of files that hold their tokens; beside keys leave",
        ),
        (ARRAYS, {"files": ["vector.npy", "all.npz"]}, r"files: found \.npy, \.npz files; give"),
        (ARRAYS, {"files": "all.npz", "key": "id"}, r"no array 'id'; arrays: item_id, vector"),
        (ARRAYS | {"item_id": np.arange(2)}, {}, r"array 'item_id' has 2 tokens for the 3 vectors"),
        (
            ARRAYS | {"vector": np.ones(3)},
            {},
            r"'vector' holds float64 of the shape \(3,\), and num",
        ),
        (ARRAYS | {"vector": np.full((3, 2), "a")}, {}, r"'vector' holds <U1 of .*, and numbers"),
        (ARRAYS | {"item_id": np.ones((3, 1))}, {}, r"holds float64 of .*\(3, 1\), and tokens"),
        (
            ARRAYS | {"item_id": np.array([0, 1.5, 2])},
            {},
            r"'item_id': row 1: found 1.5: not a 64-",
        ),
        (ARRAYS | {"item_id": np.ones(3, "m8[s]")}, {}, r"'item_id'.*type duration\[s\]; integers"),
        (ARRAYS | {"item_id": np.array([{}] * 3)}, {}, r"all\.npz: cannot be read as an array of"),
    ],
)
def test_arrays_that_do_not_fit(
    run: Run, arrays: dict[str, Any], more: dict[str, Any], says: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "all.npz", **arrays)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    given = {"name": "bad", "directory": str(tmp_path), "files": "all.npz"}
    config = VectorTable.model_validate(given | more)
    with pytest.raises((ConfigError, DataError), match=says) as raised:
        build(VectorsById(config, "item_id", run.dataset, tmp_path), Console(quiet=True))
    assert "\n" not in str(raised.value)


def test_arrays_give_the_table_of_parquet_files(run: Run, tmp_path: Path) -> None:
    """Tokens of integers, and categories of text."""
    given = write_vectors(tmp_path)
    tokens, vectors = np.array([*given]), np.stack([*given.values()])
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float64))
    np.savez(tmp_path / "both.npz", of=tokens.astype(str), text=vectors)
    images = np.array(["Shoes", "Books"]), np.array([[1, 0, 2], [0, 1, 5]])
    np.savez(tmp_path / "images.npz", category=images[0], vector=images[1])
    ways = {
        "images": {"files": "images.npz", "feature": "category"},
        "titles": {"files": "both.npz", "key": "of", "column": "text"},
        "titles again": {"files": "vectors.npy", "keys": "tokens.npy"},
    }
    for name, more in ways.items():
        feature = more.pop("feature", "item_id")
        again = {"name": "again", "directory": str(tmp_path)}
        config = VectorTable.model_validate(again | more)
        stage = VectorsById(config, feature, run.dataset, tmp_path)
        build(stage, Console(quiet=True))
        expected = np.load(run.before["vectors"][name.split()[0]].path)
        np.testing.assert_array_equal(np.load(stage.path), expected)
    assert stage.is_done()
    np.save(tmp_path / "tokens.npy", tokens[::-1])
    assert not stage.is_done()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"feature": "price"},
            r"'price', which is no categorical feature; there are: user_id, age",
        ),
        (
            {"in_request": "price"},
            r"tables: titles.in_request: found 'price', which is a feature of the data; give",
        ),
        ({"in_request": "titles"}, r"'titles' is given twice"),
        ({"files": "nothing.parquet"}, r"nothing\.parquet"),
        ({"fields": 0}, r"tables\[0\]\.fields: .*greater than or equal to 1"),
    ],
)
def test_configs_that_do_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    write_vectors(tmp_path)
    with pytest.raises(ConfigError, match=says):
        Run(load_run(write_configs(tmp_path, TITLES | changes)), tmp_path / "work").train()
