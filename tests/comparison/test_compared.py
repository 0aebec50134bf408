"""Runs side by side."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import WORLD_FEATURES, world_config
from tfctr.cli import app
from tfctr.comparison import ScoredRows, compare, cost, multiply_adds, print_comparison
from tfctr.config import ConfigError, load_run
from tfctr.data import files
from tfctr.metrics import auc, gauc
from tfctr.stages import Run

PLAIN = [f["name"] for f in WORLD_FEATURES if f["kind"] != "text"]
MODELS: dict[str, dict[str, Any]] = {
    "lr": {"backbone": "lr"},
    "deep": {"backbone": "dnn", "embedding_dim": 4, "hidden_units": [8]},
    "other": {"backbone": "lr"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Three evaluated runs, the last one on other data."""
    folder = tmp_path_factory.mktemp("compare")
    for name, seed in (("data", 3), ("other-data", 4)):
        source = {"format": "world", "users": 60, "items": 50, "events": 4_000, "seed": seed}
        content = world_config(source=source, name=name).model_dump(mode="json")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    made = {}
    for name, model in MODELS.items():
        config = {
            "name": name,
            "data": "other-data.yaml" if name == "other" else "data.yaml",
            "model": model | {"features": PLAIN},
            "training": {"batch_size": 512, "epochs": 1, "optimizer": {"learning_rate": 0.01}},
            "export": {"directory": str(folder / "saved_models")},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        made[name] = Run(load_run(path), folder / "work", Console(quiet=True))
        made[name].evaluate()
    return made


def test_differences_are_to_the_first_run_on_all_rows_and_on_each_segment(
    runs: dict[str, Run],
) -> None:
    tables = compare([runs["lr"], runs["deep"]])
    assert {"", "unseen_users", "heavy_users", "rare_items"} <= {*tables}
    rows = [ScoredRows.read([runs[name].folder]) for name in ("lr", "deep")]
    for segment, found in tables.items():
        assert [one.name for one in found] == ["lr", "deep"]
        chosen = rows[0].segments[segment] if segment else np.ones(len(rows[0].labels), bool)
        values = []
        for one, of in zip(found, rows, strict=True):
            labels, users, logits = of.labels[chosen], of.users[chosen], of.logits[0][chosen]
            assert one.rows == chosen.sum()
            assert one.measures["auc"] == pytest.approx(auc(labels, logits))
            assert one.measures["gauc"] == pytest.approx(gauc(labels, logits, users), nan_ok=True)
            values.append(one.measures["auc"])
        assert found[0].over == {}
        assert found[1].over["auc"].mean == pytest.approx(values[1] - values[0])
    assert not rows[0].segments["heavy_users"].all()


def test_heavy_users_have_at_most_a_quarter_of_the_rows(tmp_path: Path) -> None:
    users = np.repeat([1, 2, 3, 4, 5], [3, 2, 5, 8, 2])
    rows = {"label": users % 2.0, "user_key": users, "logit": users * 1.0}
    files.write_parquet(str(tmp_path / "test.parquet"), rows)
    assert not ScoredRows.read([tmp_path]).segments["heavy_users"].any()  # the first has 8 of 20
    users = np.repeat(np.arange(20), np.arange(20) + 1)  # 210 rows; 20 + 19 are of the last two
    rows = {"label": users % 2.0, "user_key": users, "logit": users * 1.0}
    files.write_parquet(str(tmp_path / "test.parquet"), rows)
    heavy = ScoredRows.read([tmp_path]).segments["heavy_users"]
    assert set(users[heavy].tolist()) == {18, 19}


def test_the_table_has_costs_and_fits_80_columns(runs: dict[str, Run]) -> None:
    said = io.StringIO()
    tables = compare([runs["lr"], runs["deep"]])
    print_comparison(tables, Console(file=said, width=80))
    lines = said.getvalue().splitlines()
    text = "\n".join(lines)
    assert f"{tables[''][1].over['gauc'].mean:+.4f}" in text
    assert f"{runs['deep'].load_model().count_params():,}" in text
    assert "Differences are to lr" in text
    assert not any("…" in line for line in lines)
    assert tables[""][0].milliseconds is None  # nothing is exported
    fields = 4 * (len(runs["deep"].load_model().schema.inputs))
    assert tables[""][1].multiply_adds == 100 * (fields * 8 + 8)


def test_exported_runs_have_times(runs: dict[str, Run]) -> None:
    both = [runs["lr"], runs["deep"]]
    for run in both:
        run.export()
    times = [one.milliseconds for one in compare(both)[""]]
    assert all(time is not None and 0 < time < 1000 for time in times)


def test_runs_on_other_rows_are_not_compared(runs: dict[str, Run]) -> None:
    with pytest.raises(ConfigError, match=r"other: other test rows than .*; compare runs on one"):
        compare([runs["lr"], runs["other"]])


def test_the_command(runs: dict[str, Run]) -> None:
    folder = runs["lr"].work.parent
    configs = [str(folder / f"{name}.yaml") for name in ("lr", "deep")]
    result = CliRunner().invoke(app, ["compare", *configs, "--work", str(runs["lr"].work)])
    assert result.exit_code == 0, result.output
    assert "evaluate is done" in result.output
    assert "heavy users" in result.output
    result = CliRunner().invoke(app, ["compare", configs[0]])
    assert result.exit_code == 1
    assert "compare: found one run; give two or more" in result.output


def test_multiply_adds_of_each_product() -> None:
    a, b = np.zeros((3, 5), "float32"), np.zeros((7, 5), "float32")
    given = {"a": a, "b": b}
    transposed = multiply_adds(lambda x: tf.matmul(x["a"], x["b"], transpose_b=True), given)
    assert transposed == 3 * 5 * 7
    assert multiply_adds(lambda x: tf.einsum("ij,kj->ik", x["a"], x["b"]), given) == 3 * 5 * 7
    with pytest.raises(NotImplementedError, match="Conv2D is not counted"):
        multiply_adds(
            lambda x: tf.nn.conv2d(x["a"][None, ..., None], x["b"][..., None, None], 1, "SAME"),
            given,
        )
    assert cost.CANDIDATES == 100
