"""What a request makes TensorFlow do: the operations that run, and where the time goes.

    python -m benchmarks.graph configs/movielens-1m/ctrl/dcnv2.yaml --work work --record

`rank` with 100 candidates of students, untrained, and of their backbones, in a session with one
thread, by its own trace. `--versions` are exports to compare them with, such as those of an earlier
tfctr. Kinds: matrix products; look-up of tokens in hash tables; gathering of
embeddings; all else, which is mostly joining, cutting and comparing small tensors.
"""

import argparse
import os
import statistics
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf
from rich.console import Console
from tensorflow_serving.apis import predict_pb2

from benchmarks.load import random_request
from benchmarks.record import record_table
from benchmarks.serving import models_in
from tfctr import serving

CANDIDATES = 100
KINDS = {
    "MatMul": "matrix products",
    "Einsum": "matrix products",
    "LookupTableFind": "token look-up",
    "HashTable": "token look-up",
    "ResourceGather": "embeddings",
    "GatherV2": "embeddings",
}
COLUMNS = ("matrix products", "token look-up", "embeddings", "all else")
HEADERS = ("model", "operations", *(f"{kind}: µs" for kind in COLUMNS), *COLUMNS)


def traced(version: Path, repeats: int) -> tuple[Counter[str], Counter[str]]:
    """Operations, and microseconds, of a request by kind."""
    request = predict_pb2.PredictRequest.FromString(
        random_request(version, np.random.default_rng(0), CANDIDATES)
    )
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    with tf.compat.v1.Session(graph=tf.Graph(), config=config) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        signature = graph.signature_def["rank"]
        fed = {signature.inputs[k].name: tf.make_ndarray(v) for k, v in request.inputs.items()}
        output = signature.outputs["scores"].name
        taken: dict[str, list[int]] = {kind: [] for kind in COLUMNS}
        for repeat in range(-20, repeats):  # the first ones are warm-up
            metadata = tf.compat.v1.RunMetadata()
            session.run(output, fed, options, metadata)
            counts: Counter[str] = Counter()
            microseconds: Counter[str] = Counter()
            for device in metadata.step_stats.dev_stats:
                for node in device.node_stats:
                    kind = _kind(node.timeline_label or node.node_name)
                    counts[kind] += 1
                    microseconds[kind] += node.all_end_rel_micros
            if repeat >= 0:
                for kind in COLUMNS:
                    taken[kind].append(microseconds[kind])
    medians = {kind: int(statistics.median(values)) for kind, values in taken.items()}
    return counts, Counter(medians)


def _kind(label: str) -> str:
    op = label.rpartition("=")[2].strip()
    return next((kind for part, kind in KINDS.items() if part in op.split("(")[0]), COLUMNS[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="run configs")
    parser.add_argument("--versions", nargs="*", default=[], type=Path, help="exports, besides")
    parser.add_argument("--work", type=Path, required=True, help="where datasets are kept")
    parser.add_argument("--repeats", type=int, default=200, help="requests of each")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    console = Console()
    versions: dict[str, Path] = {version.parent.name: version for version in args.versions}
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for path in args.configs:
            made = models_in(path, args.work, Path(temporary), console)
            for name, model in ((made.backbone, made.plain), (made.name, made.student)):
                if name not in versions:
                    versions[name] = serving.export(model, made.data, Path(temporary) / name)
        for name, version in versions.items():
            counts, taken = traced(version, args.repeats)
            shares = [f"{100 * taken[kind] / taken.total():.0f}%" for kind in COLUMNS]
            microseconds = [str(taken[kind]) for kind in COLUMNS]
            table.append([name, str(counts.total()), *microseconds, *shares])
            console.print(" | ".join(table[-1]))
    if args.record:
        record_table(
            "What a request makes TensorFlow do",
            "benchmarks.graph",
            HEADERS,
            table,
            f"medians of {args.repeats} requests",
            f"`rank` with {CANDIDATES} candidates, one thread.",
        )


if __name__ == "__main__":
    main()
