"""Rollouts in which SRP4CTR's encoder follows the days."""

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from rich.console import Console

from tests.frameworks.ecdctr.test_rollout import SMALL, day, rollout, steps, write_configs
from tests.frameworks.ecdctr.test_rollout_methods import FEATURES, NAMES, encoder_of
from tfctr.config import ConfigError
from tfctr.data.day_log import DayLog
from tfctr.data.manifest import read_manifest
from tfctr.frameworks.ecdctr.rollout import Rollout
from tfctr.frameworks.srp4ctr import FgBert

pytestmark = pytest.mark.processes


def with_encoder(folder: Path, **changes: Any) -> Rollout:
    """The encoder is refreshed every two days."""
    write_configs(folder, data={"features": FEATURES})
    data = yaml.safe_load((folder / "days.yaml").read_text())["data"]
    method = {"name": "srp4ctr", "encoder": encoder_of(data), "num_queries": 2}
    method |= {"frozen": "all", "refreshed": True}
    return rollout(
        folder,
        data={"features": FEATURES},
        model=SMALL | {"features": NAMES},
        frameworks=[method | changes],
        methods_every=2,
        tiny=None,
        complete=None,
        end=day(7),
    )


STARTS: list[Any] = []  # the encoders that trainings went on from


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rollout:
    made = with_encoder(tmp_path_factory.mktemp("encoder"))
    go_on = FgBert.start_from

    def noted(self: FgBert, earlier: FgBert) -> None:
        STARTS.append(earlier.encoder.get_weights())
        go_on(self, earlier)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FgBert, "start_from", noted)
        assert made.run() is None
    return made


def student(made: Rollout, number: int) -> Any:
    state = steps(made)[str(day(number))]["state"]
    return keras.models.load_model(made.folder / state["ads"], compile=False)


def test_the_encoder_goes_on_from_that_of_earlier_days(whole: Rollout) -> None:
    folder = whole.folder / "methods" / "encoder"
    encoders = {n: student(whole, n).encoder for n in (5, 6, 7)}
    found = {n: encoder.get_weights() for n, encoder in encoders.items()}
    later = keras.models.load_model(folder / "encoder.keras", compile=False).encoder
    (started,) = STARTS
    for i, weights in enumerate(found[5]):
        np.testing.assert_array_equal(found[6][i], encoders[6].as_own(encoders[5])[i])
        np.testing.assert_array_equal(started[i], weights)
        np.testing.assert_array_equal(found[7][i], later.get_weights()[i])
    before = encoders[7].as_own(encoders[5])
    changed = [np.abs(a - b).max() for a, b in zip(found[7], before, strict=True)]
    assert max(changed) > 1e-3
    assert not [*folder.glob("before-*")]
    # Clicks have trained what is not frozen on each of the days.
    kernels = [np.array(student(whole, n).blocks[0].inner.kernel) for n in (5, 6, 7)]
    assert np.abs(np.diff(kernels, axis=0)).max((1, 2)).min() > 1e-6


def test_it_reads_no_event_of_a_day_that_it_is_served_on(whole: Rollout) -> None:
    log = DayLog.open(whole.log_folder)
    rows = sum(log.rows(day(n), domain) for n in range(1, 8) for domain in ("organic", "ads"))
    manifest = read_manifest(whole.folder / "methods" / "data" / "manifest.json") or {}
    assert manifest["splits"]["train"]["rows"] == rows
    windows = read_manifest(whole.folder / "methods" / "windows" / "manifest.json") or {}
    assert manifest["config"]["time"]["before"].startswith(str(day(8)))
    until_the_first = sum(log.rows(day(n), d) for n in range(1, 6) for d in ("organic", "ads"))
    events = sum(split["events"] for split in windows["splits"].values())
    assert until_the_first < events <= rows


def test_a_plan_names_it(whole: Rollout) -> None:
    shown = Rollout(whole.config, whole.folder.parent / "none", Console(file=io.StringIO()))
    shown.print_plan()
    lines = shown.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        f"build {day(5)} build srp4ctr; ads from scratch",
        f"build {day(6)} evaluate; ads, trained on",
        f"build {day(7)} evaluate; encoder of srp4ctr; ads, trained on",
    ]


@pytest.mark.slow
def test_a_day_killed_in_its_refresh_ends_as_one_that_was_not(
    whole: Rollout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfctr.frameworks.srp4ctr import stages

    made = with_encoder(tmp_path)
    made.run(day(6))

    def stops(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # after the training, before its file is there
        patched.setattr(stages.PretrainEncoder, "_measure", stops)
        with pytest.raises(KeyboardInterrupt):
            made.run(day(7))
    made.run(day(7))
    for found, expected in zip(
        student(made, 7).get_weights(), student(whole, 7).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frozen": "none"}, "refreshed: found true and frozen: none; it exchanges what is frozen"),
        ({"pretrained": False}, "refreshed: found true and pretrained: false"),
    ],
)
def test_what_cannot_be_refreshed(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        with_encoder(tmp_path, **changes)
