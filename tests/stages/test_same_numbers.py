"""What small runs of the demo's configs measured before the code around them was moved about.

Equal to the last digit where as many cores with the same vector instructions add in the same order.
Elsewhere some steps of training make the order visible in the fourth digit or so.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tfctr.config import load_run
from tfctr.frameworks.ecdctr.config import load_rollout
from tfctr.frameworks.ecdctr.rollout import Rollout
from tfctr.stages import Run

pytestmark = pytest.mark.slow

DEMO = Path("configs/demo")
FIGURES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
ELSEWHERE = 5e-3
RUNS = {
    "dcnv2": "dcnv2.yaml",
    "rok/dcnv2": "rok/dcnv2.yaml",
    "titles/ctrl-dcnv2": "titles/compared.yaml#ctrl-dcnv2",
    "titles/clickprompt-dcnv2": "titles/clickprompt-dcnv2.yaml",
    "srp4ctr/dcnv2": "srp4ctr/dcnv2.yaml",
}
SOURCE = {"users": 300, "items": 120, "events": 12_000}
SMALLER = {
    "epochs": 2,
    "batch_size": 512,
    "steps_per_epoch": 20,
    "vocabulary_size": 300,
    "events": 12_000,
    "users": 300,
    "items": 120,
}


def smaller(value: Any) -> Any:
    """A config whose world is small and whose trainings are short, at every depth."""
    if isinstance(value, list):
        return [smaller(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, part in value.items():
        most = SMALLER.get(key.rpartition(".")[2])  # in a variant, a key is a path
        found[key] = min(most, part) if most and isinstance(part, int) else smaller(part)
    return found


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's configs, made smaller."""
    folder = tmp_path_factory.mktemp("configs")
    for path in DEMO.rglob("*.yaml"):
        content = smaller(yaml.safe_load(path.read_text(encoding="utf-8")))
        to = folder / path.relative_to(DEMO)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8") if cpu.is_file() else ""
    return {"cores": os.cpu_count(), "avx512": "avx512f" in flags}


def check(name: str, found: dict[str, Any]) -> None:
    expected = FIGURES[name]
    if machine() != FIGURES["machine"]:
        expected = pytest.approx(expected, abs=ELSEWHERE)
    assert found == expected, json.dumps({name: found})


@pytest.mark.parametrize("name", RUNS)
def test_a_run_measures_what_it_did(name: str, configs: Path, tmp_path: Path) -> None:
    run = Run(load_run(configs / RUNS[name]), tmp_path, Console(quiet=True))
    run.prepare()
    run.train()
    found = json.loads(run.evaluate().read_text(encoding="utf-8"))
    check(name, {k: found["test"][k] for k in ("auc", "gauc", "log_loss", "calibration_ratio")})


def test_a_rollout_measures_what_it_did(configs: Path, tmp_path: Path) -> None:
    config = load_rollout(configs / "ecdctr" / "ecdctr.yaml")
    config = config.model_copy(update={"export": None})
    rollout = Rollout(config, tmp_path, Console(quiet=True))
    rollout.run(through=config.start.replace(day=config.start.day + 3))
    days = sorted((tmp_path / config.name / "days").glob("*/metrics.json"))
    found = [json.loads(day.read_text(encoding="utf-8"))["log_loss"] for day in days]
    check("ecdctr", {d.parent.name: loss for d, loss in zip(days, found, strict=True)})
