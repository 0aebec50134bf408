"""Statistics as of a row's week."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from beam_pipelines.statistics import write_statistics
from benchmarks.movielens.strict import WEEK, StrictNumbers, write_week
from tfctr.config import load_run
from tfctr.data import Dataset
from tfctr.frameworks.statistics.stages import create_statistics, numbers_of_rows
from tfctr.stages import Run, build

pytestmark = pytest.mark.slow  # four runs of a Beam job

FIRST = 956_703_932
USERS, MOVIES, WEEKS = 30, 20, 4
FEATURES = [
    {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
    {"name": "hist_movie_id", "kind": "history", "shares": "movie_id", "max_length": 8},
    {"name": "hist_stars", "kind": "history", "column": "rating", "dtype": "int", "max_length": 8},
    {"name": "movie_id", "kind": "categorical", "side": "item", "dtype": "int"},
]


def write_log(folder: Path) -> Path:
    """As MovieLens 1M: each user rates most movies once, over four weeks."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    ratings = [
        f"{user}::{movie}::{rng.integers(1, 6)}::{FIRST + int(rng.integers(WEEKS * WEEK))}\n"
        for user in range(1, USERS + 1)
        for movie in rng.permutation(MOVIES)[:15] + 1
    ]
    (folder / "ratings.dat").write_text("".join(ratings))
    users = [f"{user}::F::25::4::{10_000 + user}\n" for user in range(1, USERS + 1)]
    (folder / "users.dat").write_text("".join(users))
    movies = [f"{movie}::Film {movie} (1990)::Drama\n" for movie in range(1, MOVIES + 1)]
    (folder / "movies.dat").write_text("".join(movies))
    return folder


def test_rows_read_tables_as_of_their_week(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    contents = {
        "data": {
            "name": "rows",
            "source": {"format": "movielens", "path": str(log)},
            "label": {"column": "rating", "positive_above": 3, "drop": [3]},
            "time": {"column": "timestamp"},
            "user": "user_id",
            "item": "movie_id",
            "split": {"by": "global_time", "valid": 0.1, "test": 0.1},
            "features": FEATURES,
        },
        "tables": {
            "name": "tables",
            "data": "data.yaml",
            "items": "hist_movie_id",
            "grades": "hist_stars",
            "neighbours": 3,
            "factors": 2,
            "steps": 2,
        },
        "run": {
            "name": "student",
            "data": "data.yaml",
            "frameworks": [{"name": "statistics", "tables": "tables.yaml", "stored": True}],
            "model": {"backbone": "dcn_v2", "features": ["user_id", "movie_id"]},
        },
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    run = Run(load_run(tmp_path / "run.yaml"), tmp_path / "work", Console(quiet=True))
    strict = StrictNumbers(run)
    build(strict, Console(quiet=True))

    data = Dataset.open(run.dataset.path)
    config = strict.method.tables
    rows = data.columns("train", ["time", "label", *config.reads])
    weeks = (rows["time"] - rows["time"].min()) // WEEK
    with np.load(strict.path) as found:
        train, labels = found["train"], found["train_labels"]
        test = found["test"]
    # The rows of the first week have no tables before them.
    assert len(train) == len(labels) == (weeks > 0).sum() < len(weeks)
    np.testing.assert_array_equal(labels, rows["label"][weeks > 0])

    # The second week's: tables of the first week's ratings alone.
    write_week(log, tmp_path / "first", int(rows["time"].min()))
    lines = (tmp_path / "first" / "ratings.dat").read_text().splitlines()
    times = [int(line.split("::")[3]) for line in lines]
    assert min(times) == rows["time"].min()
    assert max(times) < rows["time"].min() + WEEK
    source = config.data.source.model_copy(update={"path": str(tmp_path / "first")})
    alone = config.data.model_copy(update={"source": source})
    write_statistics(config, str(run.dataset.path), str(tmp_path / "alone"), log=alone)
    statistics = create_statistics(strict.method, data.schema)
    statistics.build()
    with np.load(tmp_path / "alone" / "tables.npz") as found:
        statistics.set_tables(dict(found))
    second = {name: values[weeks == 1] for name, values in rows.items()}
    numbers = numbers_of_rows(statistics, config, second, training=False)
    np.testing.assert_allclose(train[weeks[weeks > 0] == 1], numbers, atol=1e-6)

    # Test rows read those of the whole training period.
    with np.load(run.before["statistics"]["tables"].path / "tables.npz") as found:
        statistics.set_tables(dict(found))
    numbers = numbers_of_rows(statistics, config, data.columns("test", config.reads), False)
    np.testing.assert_allclose(test, numbers, atol=1e-6)
