"""Prints one scored request of a served model as a table."""

from collections.abc import Iterable
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
from tfctr.schema import REQUEST_KINDS, Text
from tfctr.serving import Client, Server
from tfctr.serving.model_directory import served_schema, versions

CANDIDATES = 5


def show_request(config: DataConfig, data: Dataset, model_folder: Path, console: Console) -> None:
    """Serves a model briefly and asks it for scores of held-out rows.

    It ranks a few candidates for the user of one row; without a feature of the item's side, which
    `rank` needs, it scores a few rows.
    """
    schema = served_schema(max(versions(model_folder).items())[1])
    split = "test" if data.num_rows("test") else "valid"
    rows = raw_rows(config, data, split, 200).to_pylist()
    known = [feature for feature in schema.inputs if not isinstance(feature, REQUEST_KINDS)]
    inputs = [feature.name for feature in known]
    items = [feature.name for feature in known if feature.side == "item"]
    with (
        Server({model_folder.name: model_folder}, grpc_port=0, rest_port=0) as server,
        Client(f"127.0.0.1:{server.grpc_port}", model_folder.name) as client,
    ):
        if not items:
            rows = rows[:CANDIDATES]
            scores = client.predict({name: [row[name] for row in rows] for name in inputs})
            console.print("\n[bold]A request[/]:")
            _print_scores(rows, scores, inputs[:4], console)
            return
        key = config.item or items[0]
        candidates = list({str(row[key]): row for row in rows}.values())[:CANDIDATES]
        user = {name: rows[0][name] for name in inputs if name not in items}
        columns = {name: [row[name] for row in candidates] for name in items}
        scores = client.rank(user, columns)
    console.print(f"\n[bold]A request[/]: {_sentence(user)}")
    texts = [f.name for f in data.schema if isinstance(f, Text) and f.side == "item"]
    shown = (texts[:1] or [key]) + [name for name in items if name != key][:3]
    ranked = sorted(zip(scores, candidates, strict=True), key=lambda pair: -pair[0])
    _print_scores([row for _, row in ranked], [score for score, _ in ranked], shown, console)


def _print_scores(
    rows: list[dict[str, Any]], scores: Iterable[float], names: list[str], console: Console
) -> None:
    table = Table(*names, "click probability")
    for row, score in zip(rows, scores, strict=True):
        table.add_row(*(_text(row[name]) for name in names), f"{score:.3f}")
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
