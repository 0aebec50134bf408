"""The stage that measures a trained model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfctr import metrics
from tfctr.data import files
from tfctr.data.manifest import read_manifest, write_manifest
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID
from tfctr.stages.calibrate import Calibrate
from tfctr.stages.stage import Stage
from tfctr.stages.train import Train

METRICS = "metrics.json"
RARE = 0.1  # share of the training rows


class Evaluate(Stage):
    """`metrics.json`: `{"valid": {...}, "test": {...}}`, for the held-out splits with rows. A
    refitted model has learned the validation rows, so only test rows are left.

    With a calibration, the metrics are of the calibrated model, and "uncalibrated" has those of the
    model before it.

    It also writes `<split>.parquet`, a row per row of the split: `label`, `logit`, `user_key` if
    the data has a user, and a bool column per segment.
    """

    name = "evaluate"

    def __init__(self, trained: Train, calibrated: Calibrate | None = None) -> None:
        self.trained = trained
        self.calibrated = calibrated
        self.folder = trained.folder
        self.path = self.folder / METRICS
        self.reads = (trained, *([calibrated] if calibrated else []))

    @property
    def made_from(self) -> Any:
        return "predictions"

    def make(self, console: Console) -> dict[str, Any]:
        console.print(f"[bold]evaluate[/] -> {self.path}", soft_wrap=True)
        self.manifest_path.unlink(missing_ok=True)
        (self.folder / "valid.parquet").unlink(missing_ok=True)  # of another config
        data, model = self.trained.open_data(), self.trained.load()
        rows = write_metrics(
            data,
            self.trained.held_out,
            lambda split: predict_split(model, data, split, console),
            self.folder,
            self._calibration(data, model) if self.calibrated else None,
        )
        return {"rows": rows}

    def _calibration(self, data: Any, model: Any) -> Callable[[str, np.ndarray], np.ndarray]:
        """From a split and the model's logits of its rows to the calibrated ones."""
        import keras

        from tfctr.training.predict import EVALUATION_BATCH

        assert self.calibrated is not None
        made = self.calibrated.wrap(model)

        def calibrate(split: str, logits: np.ndarray) -> np.ndarray:
            ids = data.columns(split, [made.by])[made.by] if made.by else np.zeros(len(logits), int)
            found = [
                # A batch at a time, since each row has a number for each knot.
                keras.ops.convert_to_numpy(
                    made.calibrate(logits[i : i + EVALUATION_BATCH], ids[i : i + EVALUATION_BATCH])
                )
                for i in range(0, len(logits), EVALUATION_BATCH)
            ]
            return np.concatenate(found)

        return calibrate

    def warn(self, console: Console) -> None:
        """Warns of splits on which the model is worse than predicting the base rate."""
        found: Mapping[str, Any] = read_manifest(self.path) or {}
        for split, measured in found.items():
            entropy = measured["normalized_entropy"]
            if entropy is not None and entropy > 1:
                console.print(
                    f"[yellow]warning:[/] {split}: normalised entropy {entropy:.4f} is above 1, "
                    "worse than predicting the base rate for every row; try training.chosen_by: "
                    "log_loss, fewer training.epochs, or more training.optimizer.embedding_l2",
                    soft_wrap=True,
                )


def predict_split(model: Any, data: Any, split: str, console: Console | None = None) -> np.ndarray:
    """The finite logits `[N]` of a split's rows, in the order of the dataset."""
    from tfctr.training.predict import EVALUATION_BATCH, check_finite, predict

    batches = getattr(data, split)(EVALUATION_BATCH, features=model.reads)
    logits: np.ndarray = predict(model, batches, split, console or Console(quiet=True))
    check_finite(logits, model, data, split)
    return logits


def write_metrics(
    data: Any,
    splits: Sequence[str],
    predict: Callable[[str], np.ndarray],
    folder: Path,
    calibrate: Callable[[str, np.ndarray], np.ndarray] | None = None,
) -> dict[str, int]:
    """Writes `metrics.json`, and what it is measured from: `<split>.parquet`.

    Args:
        data: the `Dataset`.
        splits: those that the model has not learned.
        predict: gives the logits `[N]` of a split, in the order of the dataset.
        folder: to write to.
        calibrate: gives the calibrated logits `[N]` of a split's. Defaults to none.

    Returns:
        The number of rows of each split that has rows.
    """
    found: dict[str, Any] = {}
    rows: dict[str, int] = {}
    for split in splits:
        if not data.num_rows(split):
            continue
        columns = data.columns(split, measured_by(data))
        segments = segments_of(data, columns)
        before = predict(split)
        logits = before if calibrate is None else calibrate(split, before)
        labels, users = columns["label"], columns.get("user_key")
        kept = {"label": labels} | ({} if users is None else {"user_key": users})
        written = kept | {"logit": logits} | segments
        files.write_parquet(str(folder / f"{split}.parquet"), written)
        found[split] = metrics.evaluate(labels, logits, users, segments)
        if calibrate is not None:
            of_before = metrics.evaluate(labels, before, users)
            found[split]["uncalibrated"] = {k: v for k, v in of_before.items() if k != "segments"}
        rows[split] = data.num_rows(split)
    write_manifest(found, str(folder / METRICS))
    return rows


def measured_by(data: Any) -> list[str]:
    """The columns that metrics need: the label, the user's key if there are users, and the ids of
    the user and the item, for `segments_of`."""
    return ["label", *(["user_key"] if "user" in _keys(data) else []), *_keys(data).values()]


def _keys(data: Any) -> dict[str, str]:
    """The names of the features that are a dataset's user and item, by side."""
    config = data.manifest["config"]
    return {side: config[side] for side in ("user", "item") if config[side]}


def segments_of(data: Any, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows, bool `[N]`, of users and items without a training row, and of rare ones: the least
    frequent that together have `RARE` of the training rows.

    Args:
        data: the `Dataset`.
        columns: ids `[N]` of the features that are its user and its item.
    """
    keys = _keys(data)
    found = {
        f"unseen_{side}s": _is_unseen(data, name, columns[name]) for side, name in keys.items()
    }
    for side, name in keys.items():
        found[f"rare_{side}s"] = np.isin(columns[name], _rare(data, name))
    return found


def _is_unseen(data: Any, name: str, ids: np.ndarray) -> np.ndarray:
    """bool `[N]`: not in the vocabulary of the training rows, but maybe in files of tokens."""
    from_files = data.manifest.get("vocabularies", {}).get(name, {}).get("from_files", 0)
    return (ids == OOV_ID) | (ids >= data.schema[name].num_ids - from_files)


def _rare(data: Any, name: str) -> np.ndarray:
    """The ids of a feature's rare tokens."""
    counts = np.bincount(data.columns("train", [name])[name])
    counts[:FIRST_TOKEN_ID] = 0
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    return order[np.cumsum(counts[order]) <= RARE * counts.sum()]
