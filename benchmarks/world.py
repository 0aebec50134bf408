"""Logs of the generated world, in Parquet files of many row groups."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.config import DataConfig
from tfctr.data.world import World

ROW_GROUP = 131_072
INTEGERS = ("user_id", "item_id", "hour", "position")


def write_events(
    path: Path,
    world: World,
    columns: Sequence[str],
    events: range,
    row_group: int = ROW_GROUP,
) -> None:
    """These events of a world."""
    schema = pa.schema([world.event_schema.field(name) for name in columns])
    with pq.ParquetWriter(path, schema) as writer:
        for start in events[::row_group]:
            table = world.events(start, min(start + row_group, events.stop))
            writer.write_table(table.select(schema.names), row_group_size=row_group)


def write_world(path: Path, rows: int, columns: int) -> None:
    """Parquet of so many columns, the time and the label among them."""
    world = World(
        num_users=50_000,
        num_items=10_000,
        num_events=rows,
        extra_fields=columns - 8,
    )
    names = [name for name in world.event_schema.names if name != "true_probability"]
    write_events(path, world, names, range(rows))


def world_config(path: Path, pattern: str = "") -> DataConfig:
    """Of a file as `write_world` writes it, or of all that a pattern names."""
    sides = {"user_id": "user", "item_id": "item"}
    features = [
        {
            "name": name,
            "kind": "categorical",
            "side": sides.get(name, "context"),
            "dtype": "int" if name in INTEGERS else "string",
        }
        for name in pq.read_schema(path).names
        if name not in ("timestamp", "click")
    ]
    content = {
        "name": "benchmark",
        "source": {"format": "parquet", "events": pattern or str(path)},
        "label": {"column": "click"},
        "time": {"column": "timestamp"},
        "user": "user_id",
        "features": features,
    }
    return DataConfig.model_validate(content)
