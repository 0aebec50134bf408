"""A log of the generated world as users have it: several files, each of several pieces."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.conftest import WORLD_FEATURES, world_config
from tfctr.data import World

HISTORIES = [
    {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": 5},
    {"name": "past_click", "kind": "history", "column": "click", "max_length": 5},
]


def write_log(folder: Path, world: World, files: int, piece: int) -> None:
    """Writes events in so many files, of pieces of so many rows, and the tables joined to them."""
    step = world.num_events // files
    for i in range(files):
        events = world.events(step * i, step * (i + 1))
        pq.write_table(events, folder / f"log-{i}.parquet", row_group_size=piece)
    pq.write_table(world.users(), folder / "users.parquet", row_group_size=40)
    pq.write_table(world.items(), folder / "items.parquet")


def data_config(folder: Path | str, **changes: Any) -> Any:
    """The config of such a log, with histories."""
    source = {
        "format": "parquet",
        "events": "log-*.parquet",
        "users": {"path": "users.parquet", "key": "user_id"},
        "items": {"path": "items.parquet", "key": "item_id"},
    }
    features = [*WORLD_FEATURES, *HISTORIES]
    made = {"source": source, "features": features, "split": {"by": "user_time"}}
    return world_config(directory=str(folder), **made | changes)
