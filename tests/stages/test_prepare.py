"""When a dataset is taken for that of its log."""

import json
from pathlib import Path

import numpy as np
import pytest

from tfctr.config import ConfigError, DataConfig
from tfctr.stages import Prepare, prepare
from tfctr.stages.cost import measured

LOG = "user,time,click\n" + "".join(f"u{i % 3},{i},{i % 2}\n" for i in range(40))


def config(folder: Path) -> DataConfig:
    content = {
        "name": "small",
        "directory": str(folder),
        "source": {"format": "csv", "events": "log.csv"},
        "label": {"column": "click"},
        "time": {"column": "time"},
        "features": [{"name": "user", "kind": "categorical", "side": "user"}],
    }
    return DataConfig.model_validate(content)


def test_a_log_that_is_gone_is_as_it_was_and_one_that_has_changed_is_not(tmp_path: Path) -> None:
    log, folder = tmp_path / "log.csv", tmp_path / "work"
    log.write_text(LOG)
    prepare(config(tmp_path), folder)
    stage = Prepare(config(tmp_path), folder)
    assert stage.is_done()
    cost = json.loads((folder / "manifest.json").read_text())["cost"]
    assert 0 < cost["seconds"] < 300
    assert cost["peak_bytes"] is None or cost["peak_bytes"] > 1 << 20
    log.write_text(LOG.replace("u2", "u9"))
    assert not stage.is_done()
    log.write_bytes(LOG.encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-16"):  # not taken for one that is gone
        stage.is_done()
    log.unlink()
    assert stage.is_done()


def test_the_peak_of_memory_is_that_of_the_time() -> None:
    block = np.ones(1 << 26, np.uint8)  # 64 MiB, which are given back before the second peak
    with measured() as with_block:
        block = np.concatenate([block, block])
    del block
    with measured() as without:
        pass
    if with_block["peak_bytes"] is None:
        pytest.skip("the system does not tell how much memory a process held")
    assert with_block["peak_bytes"] - without["peak_bytes"] > 1 << 26
