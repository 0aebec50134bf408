"""The tables of benchmarks: what is compared with what, and that each cell has its header."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import movielens, rollouts, students
from benchmarks.movielens.__main__ import of_seed
from tests.frameworks.ecdctr.test_rollout_report import write_days
from tests.frameworks.rok.test_rok import write_configs
from tfctr.comparison import ScoredRows
from tfctr.config import ConfigError, load_run
from tfctr.data import files

FOUND = {
    name: 0.5
    for name in ("auc", "gauc", "log_loss", "auc_unseen_users", "auc_rare_items", "valid_auc")
}


def write_predictions(folder: Path, skill: float, rows: int = 400) -> Path:
    generator = np.random.default_rng(0)
    labels, users = generator.integers(0, 2, rows), np.arange(rows) // 10
    logits = generator.normal(size=rows) + skill * labels
    columns = {"label": labels, "user_key": users, "logit": logits}
    files.write_parquet(str(folder / "test.parquet"), columns)
    return folder


def test_a_student_is_compared_on_the_same_rows(tmp_path: Path) -> None:
    good, bad = (
        ScoredRows.read(write_predictions(tmp_path / f"{skill}-{seed}", skill) for seed in (1, 2))
        for skill in (2.0, 0.0)
    )
    over = good.over(bad)
    assert over["auc"].low > 0
    assert over["log_loss"].mean != 0
    cells = dict(zip(students.HEADERS, students.row("a", "dnn", [FOUND] * 2, over), strict=True))
    assert cells["deviation"] == "0.0000"
    assert cells["p"] == "0.002"
    assert students.row("a", "dnn", [FOUND], None).count("") == 4
    fewer = ScoredRows.read([write_predictions(tmp_path / "fewer", 0.0, rows=300)])
    with pytest.raises(ConfigError, match="other test rows"):
        good.over(fewer)


def test_a_seed_is_that_of_the_teacher_too(tmp_path: Path) -> None:
    path = write_configs(tmp_path)
    knowledge = of_seed(load_run(path), 3).method("rok").knowledge
    assert knowledge is not None
    assert (knowledge.name, knowledge.training.seed) == ("knowledge-seed-3", 3)
    teacher = of_seed(load_run(tmp_path / "rim.yaml"), 3)
    assert knowledge.teacher == teacher  # who is trained once, whoever asks first
    assert teacher.training.seed == 3


def test_rollouts_have_an_interval_of_days_and_one_of_seeds(tmp_path: Path) -> None:
    first, other = (
        [write_days(tmp_path / f"{name}-{seed}", [0.7 + better, 0.6, None]) for seed in (1, 2)]
        for name, better in (("first", 0.1), ("other", 0.0))
    )
    cells = rollouts.row("other", other, first)
    assert len(cells) == len(rollouts.HEADERS)
    assert cells[3:5] == ["+0.0500 (+0.0000 to +0.1000)", "+0.0500 to +0.0500"]
    assert rollouts.row("first", first, first)[3:5] == ["", ""]


def test_movielens_has_a_cell_for_each_header() -> None:
    found = FOUND | {"half_interval": 0.003, "best_epoch": 2, "parameters": 10}
    cells = movielens.__main__.row("dcnv2", [found, found])
    assert len(cells) == len(movielens.__main__.HEADERS)
    assert cells[3] == "0.0030"
