"""Rollouts side by side, from days made up by hand."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.frameworks.ecdctr.test_rollout import write_configs
from tfctr.cli import app
from tfctr.config import ConfigError
from tfctr.data.manifest import DataError, write_manifest
from tfctr.frameworks.ecdctr.report import EvaluatedRollout, mean_difference

FIRST = datetime.date(2024, 3, 1)


def write_days(folder: Path, aucs: list[float | None], inactive: bool = True) -> EvaluatedRollout:
    """A rollout of days with these AUCs; the first day is the step before it is served."""
    for number, auc in enumerate([None, *aucs]):
        day = FIRST + datetime.timedelta(days=number)
        at = folder / "days" / str(day)
        measured = {"auc": auc, "gauc": auc, "log_loss": 0.5, "rows": 4}
        about: dict[str, Any] = {
            "day": str(day),
            "rows_read": {"ads": 100 * number, "complete": 50},
            "seconds": 2.0,
        }
        if number:
            about["metrics"] = measured
            evaluated = {
                "label": [1.0, 0.0, 1.0, 0.0],
                "logit": [0.9, number / 10, 0.3, 0.2],
                "user_key": [1, 2, 2, 1],
                "inactive_users": [inactive] * 4,
                "unseen_users": [False] * 4,
            }
            at.mkdir(parents=True)
            pq.write_table(pa.table(evaluated), at / "evaluated.parquet")
        write_manifest(about, str(at / "step.json"))
    return EvaluatedRollout.read(folder)


def test_days_are_read_with_their_measures(tmp_path: Path) -> None:
    found = write_days(tmp_path / "ads", [0.6, None, 0.7])
    assert found.name == "ads"
    assert found.days == tuple(FIRST + datetime.timedelta(days=i) for i in (1, 2, 3))
    np.testing.assert_array_equal(found.daily["auc"], [0.6, np.nan, 0.7])
    assert found.daily["rows_read"].tolist() == [150, 250, 350]
    assert found.mean("auc") == pytest.approx(0.65)
    # Clicks at .9 and .3, three times each; the others at .1, .2, .3 and at .2. Only .3 ties.
    assert found.pooled_auc("inactive_users") == pytest.approx((36 - 3 * 0.5) / 36)
    assert np.isnan(found.pooled_auc("unseen_users"))
    # User 1: .9 before .2. User 2: .3 before .1, .2 and, in three of nine pairs, level with .3.
    assert found.pooled_gauc() == pytest.approx((1 + 7.5 / 9) / 2)


def test_differences_are_of_the_same_days(tmp_path: Path) -> None:
    better = [write_days(tmp_path / f"better-{i}", [0.7, 0.6, 0.8]) for i in range(2)]
    worse = [write_days(tmp_path / f"worse-{i}", [0.6, 0.5, 0.7]) for i in range(2)]
    found = mean_difference(better, worse, "auc")
    assert [found.mean, *found.days, *found.seeds] == pytest.approx([0.1] * 5)
    noisy = [write_days(tmp_path / f"noisy-{i}", [0.9, 0.4, None]) for i in range(2)]
    found = mean_difference(noisy, worse, "auc")
    assert found.mean == pytest.approx(0.1)  # of 0.3 and -0.1; the third day does not count
    assert found.days == pytest.approx((-0.1, 0.3))
    assert np.isnan(mean_difference(better[:1], worse[:1], "auc").seeds).all()  # of one seed
    longer = write_days(tmp_path / "longer", [0.7, 0.6, 0.8, 0.8])
    with pytest.raises(
        ConfigError, match=r"better-0 has 3 evaluated days.*longer has 4.*run both over the same"
    ):
        mean_difference(better[:1], [longer], "auc")


def test_the_page_shows_each_rollout_and_its_difference(tmp_path: Path) -> None:
    files, work = [], tmp_path / "work"
    for name, aucs in (("ecdctr", [0.7, 0.72, 0.74]), ("ads-only", [0.6, 0.62, 0.64])):
        write_days(work / name, aucs, inactive=name == "ecdctr")
        files.append(str(write_configs(tmp_path / name, name=name)))
    page = tmp_path / "pages" / "rollouts.html"
    found = CliRunner().invoke(app, ["report", *files, "--output", str(page), "--work", str(work)])
    assert found.exit_code == 0, found.output
    text = page.read_text()
    assert text.count("<svg role") == 4
    assert "<td>0.7200</td>" in text
    assert '<span class="low">−0.1000</span>' in text
    assert "−0.1000 to −0.1000" in text
    assert "resampled blocks of 7 days" in text
    assert '–<br><span class="muted small">0 rows' in text  # no inactive users there
    assert ">200</text>" in text  # of the rows read: no powers of ten
    assert "mathdefault" not in text
    assert "ads-only" in text
    assert 'src="' not in text  # all of it is in the file
    assert 'href="http' not in text


def test_a_rollout_without_evaluated_days_is_named(tmp_path: Path) -> None:
    file = write_configs(tmp_path, name="ads")
    found = CliRunner().invoke(app, ["report", str(file), "--work", str(tmp_path / "work")])
    assert found.exit_code == 1
    assert "no day was evaluated; run `tfctr rollout` first" in found.output
    with pytest.raises(DataError, match="no day was evaluated"):
        EvaluatedRollout.read(tmp_path / "work" / "ads")
