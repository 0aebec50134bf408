"""Paths to real data, and small prepared data sets, for all tests."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests import quick_beam
from tfctr.config import DataConfig

quick_beam.install()

WORLD_FEATURES = [
    {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
    {"name": "age_group", "kind": "categorical", "side": "user"},
    {"name": "account_age_days", "kind": "numeric", "side": "user"},
    {"name": "hour", "kind": "categorical", "side": "context", "dtype": "int"},
    {"name": "item_id", "kind": "categorical", "side": "item", "dtype": "int"},
    {"name": "category", "kind": "categorical", "side": "item"},
    {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 3},
    {
        "name": "price",
        "kind": "numeric",
        "side": "item",
        "transform": "bucketize",
        "num_buckets": 8,
    },
    {"name": "title", "kind": "text", "side": "item"},
]


def world_config(**changes: object) -> DataConfig:
    """20,000 events of a small generated world."""
    content = {
        "name": "world",
        "source": {"format": "world", "users": 300, "items": 120, "events": 20_000, "seed": 3},
        "label": {"column": "click"},
        "time": {"column": "timestamp"},
        "user": "user_id",
        "item": "item_id",
        "features": WORLD_FEATURES,
    }
    return DataConfig.model_validate(content | changes)


def few_quick(parameters: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters of a test that takes seconds for each: all but a few are slow."""
    return [p if p in quick else pytest.param(p, marks=pytest.mark.slow) for p in parameters]


@pytest.fixture(scope="session")
def world_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset directory of `world_config()`."""
    from tfctr.stages import prepare

    folder = tmp_path_factory.mktemp("world") / "world"
    prepare(world_config(), folder, console=Console(quiet=True))
    return folder


@pytest.fixture
def set_precision() -> Iterator[Callable[[str], None]]:
    """Layers that are created after a call compute in this precision, e.g. "mixed_bfloat16"."""
    import keras

    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def data_home() -> Path:
    """The folder with the real archives."""
    home = os.environ.get("TFCTR_DATA_HOME")
    if not home or not (Path(home) / "ml-1m.zip").is_file():
        pytest.skip("needs ml-1m.zip in the folder that TFCTR_DATA_HOME names")
    return Path(home)


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below, by its path: its bytes."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def model() -> Any:
    """A backbone of `tests.serving.raw_rows.SCHEMA` whose scores differ."""
    from tests.serving.raw_rows import SCHEMA, spread_weights
    from tfctr.backbones import DCNv2

    return spread_weights(DCNv2(SCHEMA, embedding_dim=4, hidden_units=(8,), num_cross_layers=1))


@pytest.fixture(scope="session")
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its version's folder."""
    from tests.serving.raw_rows import fake_dataset
    from tfctr.serving import export

    folder = tmp_path_factory.mktemp("exported")
    version = export(model, fake_dataset(folder / "vocabularies"), folder / "tiny")
    shutil.rmtree(folder / "vocabularies")  # the SavedModel carries its own
    return version
