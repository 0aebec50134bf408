"""What `deploy/` holds fits the commands that it calls."""

import runpy
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.test_rollout import BY_DAY, day, write_configs, write_logs
from tfctr.cli import MISSING_DAY, app

DEPLOY = Path(__file__).parent.parent / "deploy"


def test_the_airflow_example_takes_the_step_of_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for Airflow, which is not installed here."""
    found: dict[str, Any] = {}

    class DAG:
        def __init__(self, dag_id: str, **settings: Any) -> None:
            found["dag"] = settings

        def __enter__(self) -> "DAG":
            return self

        def __exit__(self, *_: Any) -> None: ...

    names = [
        "airflow",
        "airflow.sdk",
        "airflow.providers",
        "airflow.providers.standard",
        "airflow.providers.standard.operators",
        "airflow.providers.standard.operators.bash",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    modules["airflow.sdk"].DAG = DAG  # type: ignore[attr-defined]
    modules[names[-1]].BashOperator = lambda **task: found.update(task=task)  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["airflow.sdk"].CronDataIntervalTimetable = lambda *a, **k: a  # type: ignore[attr-defined]
    runpy.run_path(str(DEPLOY / "airflow" / "ads_rollout.py"))
    assert found["dag"]["max_active_runs"] == 1
    assert found["task"]["depends_on_past"]

    write_logs(tmp_path, [1, 2, 3, 4])  # the step of the fifth needs its rows
    write_configs(tmp_path, tiny=None, complete=None, data={"source": BY_DAY})
    command = found["task"]["bash_command"].replace("{{ data_interval_start | ds }}", str(day(5)))
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, shlex.split(command)[1:])
    assert ended.exit_code == MISSING_DAY, ended.output
