"""What an encoder of events costs a request: SRP4CTR's student beside its backbone.

    python -m benchmarks.folding configs/movielens-1m/srp4ctr/din.yaml --work work --record

Multiply-adds of all matrix products, and the time of a request, with 1 to 1,000 candidates of one
user: the backbone's `rank`; the student's, which computes the user's side once (folded); the
student's `serving_default`, a row a candidate (unfolded); and `score` alone, of a user that was
kept. Weights cost the same whatever they hold, so nothing is trained.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console

from benchmarks.record import record_table
from tfctr import serving
from tfctr.comparison import multiply_adds, multiply_adds_of_request
from tfctr.config import load_run
from tfctr.data.dataset import Dataset
from tfctr.serving.raw_values import raw_dtype
from tfctr.serving.warmup import read_warmup
from tfctr.stages import Run, create_model

CANDIDATES = (1, 10, 100, 1000)
HEADERS = (
    "model",
    "request",
    *(f"{n:,}" for n in CANDIDATES),
    *(f"{n:,}: over the backbone" for n in CANDIDATES),
)


def counted(model: Any, data: Dataset, folded: bool) -> list[int]:
    """Multiply-adds of a request with each number of candidates."""
    if folded:
        return [multiply_adds_of_request(model, n) for n in CANDIDATES]
    columns = {k: v[:1] for k, v in data.columns("test", list(model.reads)).items()}
    return [
        multiply_adds(model, {k: tf.repeat(tf.constant(v), n, axis=0) for k, v in columns.items()})
        for n in CANDIDATES
    ]


def requests(version: Path, model: Any) -> dict[tuple[str, int], Callable[[], Any]]:
    """A request of each signature with each number of candidates."""
    loaded = tf.saved_model.load(str(version))
    made: dict[tuple[str, int], Callable[[], Any]] = {}
    logs = [log.predict_log.request for log in read_warmup(version) if log.HasField("predict_log")]
    (rows,) = (
        {k: tf.make_ndarray(v) for k, v in r.inputs.items()}
        for r in logs
        if r.model_spec.signature_name == "serving_default"
        and tf.make_ndarray(next(iter(r.inputs.values()))).shape[0] > 1
    )
    schema = model.schema
    items = [feature.name for feature in schema.side("item")]
    for n in CANDIDATES:
        of_rows = {
            name: tf.constant(
                np.resize(rows[name], (n, *rows[name].shape[1:]))
                if name in items
                else np.repeat(rows[name][:1], n, axis=0),
                raw_dtype(schema[name]),
            )
            for name in rows
        }
        ranked = {k: v[None] if k in items else v[:1] for k, v in of_rows.items()}
        made["serving_default", n] = _ask(loaded, "serving_default", of_rows)
        made["rank", n] = _ask(loaded, "rank", ranked)
        if "score" in loaded.signatures:
            user = {k: v for k, v in ranked.items() if k not in items}
            kept = loaded.signatures["encode_user"](**user)
            made["score", n] = _ask(loaded, "score", kept | {k: ranked[k] for k in items})
    return made


def _ask(loaded: Any, signature: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    return lambda: loaded.signatures[signature](**inputs)["scores"].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="run configs of SRP4CTR")
    parser.add_argument("--work", type=Path, required=True, help="where datasets are kept")
    parser.add_argument("--repeats", type=int, default=100, help="requests of each")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    console = Console()
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in args.configs:
            config = load_run(path)
            Run(config, args.work, console).prepare()
            data = Dataset.open(args.work / config.data.name)
            plain = create_model(config.model_copy(update={"frameworks": ()}), data.schema)
            student = create_model(config, data.schema)
            for model in (plain, student):
                model.build()
            kinds = {
                (config.model.backbone, "rank"): plain,
                (config.name, "rank, folded"): student,
                (config.name, "serving_default, unfolded"): student,
            }
            counts = {
                key: counted(model, data, "unfolded" not in key[1]) for key, model in kinds.items()
            }
            made = {
                model: requests(serving.export(model, data, f"{folder}/{config.name}-{i}"), model)
                for i, model in enumerate((plain, student))
            }
            asked = {key: made[model] for key, model in kinds.items()}
            asked[config.name, "score, of a kept user"] = made[student]
            seconds: dict[Any, list[float]] = {}
            for repeat in range(args.repeats + 3):
                for key, of_model in asked.items():
                    signature = key[1].partition(",")[0]
                    for n in CANDIDATES:
                        start = time.perf_counter()
                        of_model[signature, n]()
                        if repeat >= 3:
                            seconds.setdefault((key, n), []).append(time.perf_counter() - start)
            base = (config.model.backbone, "rank")
            for key, found in counts.items():
                ratios = [f"{a / b:.2f}" for a, b in zip(found, counts[base], strict=True)]
                cells = [f"{value / 1e6:,.2f}" for value in found]
                table.append([key[0], f"{key[1]}: million multiply-adds", *cells, *ratios])
            for key in asked:
                medians = [statistics.median(seconds[key, n]) * 1000 for n in CANDIDATES]
                plain_medians = [statistics.median(seconds[base, n]) * 1000 for n in CANDIDATES]
                ratios = [f"{a / b:.2f}" for a, b in zip(medians, plain_medians, strict=True)]
                cells = [f"{value:.2f}" for value in medians]
                table.append([key[0], f"{key[1]}: ms", *cells, *ratios])
    for cells in (HEADERS, *table):
        console.print(" | ".join(cells))
    if args.record:
        note = (
            "One user; columns are candidates of the request. Milliseconds: p50, in this process."
        )
        record_table(
            "SRP4CTR: the cost of a request",
            "benchmarks.folding",
            HEADERS,
            table,
            f"medians of {args.repeats} requests",
            note,
        )


if __name__ == "__main__":
    main()
