"""Rows a second and memory of what CTRL and ClickPrompt train before their student.

    python -m benchmarks.pretraining configs/movielens-1m/ctrl/dcnv2.yaml \\
        configs/movielens-1m/clickprompt/dcnv2.yaml --work work --record

Each config is measured in a process of its own: as it stands, CTRL also with all of its encoder
trained, once with each distinct text of a batch encoded once and once with all of them. Wall-clock
seconds, so on a machine with nothing else to do.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.record import Result, record

STEPS = 3
WARM_UP = 1  # a step of all of MiniLM takes a minute or two


def measure(path: Path, work: Path, variant: str) -> dict[str, float]:
    """Rows a second, the median of `STEPS` steps, and the peak of resident memory in MiB."""
    import keras
    import tensorflow as tf

    from tfctr.config import load_run
    from tfctr.data import Dataset
    from tfctr.frameworks.clickprompt.stages import create_prompted_masked_lm
    from tfctr.frameworks.ctrl.stages import create_alignment
    from tfctr.stages import Run
    from tfctr.training.optimizer import make_optimizer

    run = Run(load_run(path), work, Console(quiet=True))
    method = _method(run.config)
    stages = run.before[method.name]
    data = Dataset.open(run.data_folder, [stages["texts"].path])
    training = method.pretraining
    keras.utils.set_random_seed(1)
    backbone = run.config.model.create(data.schema)
    if method.name == "ctrl":
        if variant != "as it is":
            method = method.model_copy(update={"trained_layers": None})
        model: Any = create_alignment(method, backbone, data, stages)
    else:
        model = create_prompted_masked_lm(method, backbone, stages)
    model.build()
    model.compile(make_optimizer(training.optimizer, 1, 1, model.encoder_variables))
    batches = data.train(training.batch_size, 0, model.reads)
    if variant == "all texts":
        batches = batches.map(lambda features, labels: (_apart(features, method), labels))
    step = tf.function(model.train_step, reduce_retracing=True)
    taken = []
    for batch in batches.take(WARM_UP + STEPS):
        start = time.perf_counter()
        step(batch)
        taken.append(time.perf_counter() - start)
    return {
        "rows_a_second": training.batch_size / statistics.median(taken[WARM_UP:]),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _method(config: Any) -> Any:
    """The config of CTRL or ClickPrompt in that of a run."""
    from tfctr.config import ConfigError

    for method in config.frameworks:
        if method.name in ("ctrl", "clickprompt") and method.pretraining is not None:
            return method
    raise ConfigError(
        f"{config.name}: nothing is trained beside a language model before its student"
    )


def _apart(features: dict[str, Any], method: Any) -> dict[str, Any]:
    """The batch as if no two rows had one text."""
    import tensorflow as tf

    from tfctr.language.config import text_fields

    keys = {text_fields(text)[2] for text in method.text.texts}
    places = tf.range(tf.shape(next(iter(features.values())))[0], dtype=tf.int64)
    pair = tf.stack([tf.zeros_like(places), places], axis=1)
    return {name: pair if name in keys else values for name, values in features.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="run configs")
    parser.add_argument("--work", type=Path, required=True, help="where datasets and texts are")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.configs[0], args.work, args.measure)))
        return

    from tfctr.config import load_run
    from tfctr.stages import Run, build

    console = Console()
    results = []
    for path in args.configs:
        config = load_run(path)
        run, method = Run(config, args.work, console), _method(config)
        run.prepare()
        if encoder := run.before[method.name].get("encoder"):
            build(encoder, console)
        ctrl = method.name == "ctrl"
        speeds = {}
        for variant in ("as it is", "distinct texts", "all texts") if ctrl else ("as it is",):
            module = [sys.executable, "-m", "benchmarks.pretraining", str(path)]
            command = [*module, "--work", str(args.work), "--measure", variant]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            speeds[variant] = found["rows_a_second"]
            what = f"{config.name}, {variant}"
            results.append(Result(what, found["rows_a_second"], "rows/s"))
            results.append(Result(what, found["memory"], "MiB"))
            console.print(f"{what}: {found}")
        if ctrl:
            saved = speeds["distinct texts"] / speeds["all texts"]
            results.append(Result(f"{config.name}: distinct texts over all", saved, "ratio"))
    if args.record:
        note = (
            "Distinct texts, all texts: the whole encoder trained, each distinct text of a batch "
            "encoded once, or each row's."
        )
        runs = f"medians of {STEPS} steps"
        record("Pre-training beside an encoder", "benchmarks.pretraining", results, runs, note)


if __name__ == "__main__":
    main()
