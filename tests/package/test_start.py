"""What a program pays to import tfctr, and a user to ask for help: none of the large libraries."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

from tfctr.config import ConfigError

HEAVY = {
    *("tensorflow", "keras", "apache_beam", "pyarrow", "numpy", "grpc", "scipy"),
    *("matplotlib", "jinja2", "optuna", "sklearn", "pandas", "keras_hub", "dask"),
}
COMMANDS = (
    "run",
    "demo",
    "prepare",
    "predict",
    "serve",
    "rollout",
    "retrieve",
    "sequences",
    "statistics",
)


@pytest.mark.parametrize(
    "code",
    [
        "import tfctr",
        "from tfctr.cli import app; app(['--help'], standalone_mode=False)",
        "from tfctr.cli import app; app(['run', '--help'], standalone_mode=False)",
    ],
)
def test_no_large_library_is_imported(code: str) -> None:
    code += "\nimport json, sys; print('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    assert not HEAVY & {*json.loads(modules)}
    if "['--help']" in code:
        assert all(f" {command} " in "\n".join(printed) for command in COMMANDS)


@pytest.mark.parametrize("library", ["keras_hub", "safetensors"])
def test_what_is_not_installed_is_named_with_its_extra(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "tfctr.language.libraries", raising=False)
    with pytest.raises(ConfigError, match=rf"need {library}.*pip install 'tfctr\[language\]'"):
        import_module("tfctr.language.libraries")
