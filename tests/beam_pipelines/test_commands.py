"""Beam jobs as commands: `python -m beam_pipelines.<job>`."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

import beam_pipelines
from beam_pipelines.prepare import main, prepare
from beam_pipelines.running import job
from beam_pipelines.sequences import write_sequences
from tests.beam_pipelines.test_prepare import RUNNERS
from tests.conftest import content_of
from tests.frameworks.srp4ctr.test_sequences import of_four_events, write_logs

JOBS = [
    path.stem
    for path in sorted(Path(beam_pipelines.__path__[0]).glob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text()
]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # it is, here
@pytest.mark.parametrize("name", JOBS)
def test_a_command_runs_the_module_that_workers_import(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"beam_pipelines.{name}")
    monkeypatch.setattr(module, "main", lambda: 7)
    with pytest.raises(SystemExit) as exited:
        runpy.run_module(module.__name__, run_name="__main__")
    assert exited.value.code == 7


@pytest.mark.parametrize("name", JOBS)
def test_help_shows_the_job_s_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        importlib.import_module(f"beam_pipelines.{name}").main(["--help"])
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m beam_pipelines.{name} " in shown
    assert "--output OUTPUT" in shown
    assert "--direct_num_workers" not in shown  # Beam's are many


@pytest.mark.parametrize(
    ("option", "refused"),
    [
        ("--runer=FlinkRunner", "found --runer=FlinkRunner, an option of neither the job nor Beam"),
        ("--conf=data.yaml", "found --conf=data.yaml, an option of neither"),
        ("--runner=Flnk", "Beam's options: Unexpected pipeline runner: Flnk"),
    ],
)
def test_unknown_options_are_refused_in_one_line(
    option: str, refused: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_logs(tmp_path)
    config = of_four_events(tmp_path).data
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    output = tmp_path / "data"
    assert main([f"--config={tmp_path / 'data.yaml'}", f"--output={output}", option]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(refused)
    assert shown.count("\n") == 1
    assert not output.exists()


def test_a_job_server_s_own_options_are_left_to_it() -> None:
    """Only the server knows them: the runner asks it."""
    args = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--checkpointing_interval=9"]
    job._pipeline(PipelineOptions(args), args)


@pytest.mark.processes
def test_a_command_with_workers_in_other_processes(tmp_path: Path) -> None:
    """What it gives from step to step is of classes of its own module."""
    write_logs(tmp_path)
    config, data = of_four_events(tmp_path), str(tmp_path / "data")
    prepare(config.data, data)
    write_sequences(config, data, str(tmp_path / "one"))
    (tmp_path / "windows.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "beam_pipelines.sequences", *RUNNERS["processes"]]
    command += [f"--config={tmp_path / 'windows.yaml'}", f"--data={data}"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'two'}"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")
