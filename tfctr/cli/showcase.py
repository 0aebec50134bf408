"""Prints one scored request of a served model as a table."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tfctr.config import DataConfig
from tfctr.data.dataset import Dataset
from tfctr.data.raw_rows import raw_rows
from tfctr.data.readers import WorldReader
from tfctr.data.sources import open_source
from tfctr.metrics import auc
from tfctr.schema import Text
from tfctr.serving import Client, Server
from tfctr.serving.model_directory import served_schema, versions

CANDIDATES = 5


def show_request(config: DataConfig, data: Dataset, model_folder: Path, console: Console) -> None:
    """Serves a model briefly and ranks a few candidates for the user of a held-out row."""
    schema = served_schema(max(versions(model_folder).items())[1])
    split = "test" if data.num_rows("test") else "valid"
    rows = raw_rows(config, data, split, 200).to_pylist()
    row = rows[0]
    key = config.item or next(f.name for f in data.schema.side("item"))
    candidates = list({str(found[key]): found for found in rows}.values())[:CANDIDATES]
    inputs = [feature.name for feature in schema.inputs]
    items = [feature.name for feature in schema.side("item")]
    user = {name: row[name] for name in inputs if name not in items}
    with (
        Server({model_folder.name: model_folder}, grpc_port=0, rest_port=0) as server,
        Client(f"127.0.0.1:{server.grpc_port}", model_folder.name) as client,
    ):
        columns = {name: [found[name] for found in candidates] for name in items}
        scores = client.rank(user, columns)
    console.print(f"\n[bold]A request[/]: {_sentence(user)}")
    texts = [f.name for f in data.schema if isinstance(f, Text) and f.side == "item"]
    shown = (texts[:1] or [key]) + [name for name in items if name != key][:3]
    table = Table(*shown, "click probability")
    for score, found in sorted(zip(scores, candidates, strict=True), key=lambda pair: -pair[0]):
        table.add_row(*(_text(found[name]) for name in shown), f"{score:.3f}")
    console.print(table)


def best_auc(config: DataConfig, data: Dataset) -> float | None:
    """The test AUC of the true click probabilities, which only a generated world knows."""
    reader = open_source(config).events
    if not isinstance(reader, WorldReader) or not data.num_rows("test"):
        return None
    columns = data.columns("test", ["row_id", "label"])
    first, last = int(columns["row_id"].min()), int(columns["row_id"].max())
    truth = reader.world.events(first, last + 1)["true_probability"].to_numpy()
    return auc(columns["label"], truth[columns["row_id"] - first])


def _sentence(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
