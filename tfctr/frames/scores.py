"""Scores and metrics of rows in a DataFrame, by a model in this process."""

import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tfctr import metrics
from tfctr.config import ConfigError, Label
from tfctr.data.clean import LABEL, USER_KEY, tally
from tfctr.data.dataset import Dataset
from tfctr.data.encode import encoded
from tfctr.data.fingerprint import row_keys
from tfctr.data.rows_to_score import RowsToScore
from tfctr.data.typed_rows import ROW
from tfctr.data.vocabulary import Vocabulary
from tfctr.frames.tables import BATCH, NAME, as_log, is_frame
from tfctr.models import probabilities
from tfctr.models.click_model import ClickModel
from tfctr.schema import TOKEN_KINDS
from tfctr.stages.evaluate import measured_by, predict_split, segments_of


def predict(
    model: ClickModel,
    x: Any,
    batch_size: int | None = None,
    verbose: int = 0,
    data: Dataset | None = None,
) -> np.ndarray:
    """Probabilities of a click, float32 `[N]`, in the rows' order: `model.predict` gives logits.

    Args:
        model: a backbone or a student.
        x: raw rows in a DataFrame (pandas, Polars, pyarrow, ...) with the columns of the log; a
            history is a list under its own name. Or as for `model.predict`: `{feature: values}`
            with ids and floats, or batches, such as `data.test(4096)`.
        batch_size: int, for arrays and DataFrames. Defaults to Keras' 32, and to 8,192.
        verbose: int, 1 for Keras' progress bar. Defaults to 0.
        data: the dataset that the model was trained on, whose vocabularies give raw rows their ids.
            Defaults to that of `model.schema`, which a model from a `.keras` file does not know.

    Returns:
        A row of a DataFrame that cannot be read has NaN; a warning says how many there are and why.

    Raises:
        TypeError: the model is not one of clicks.
        ConfigError: a column is missing, or its type can hold no value of its feature; `data` is
            needed.

    Example:

        tfctr.predict(model, df)                       # [len(df)]
        tfctr.predict(model, data.test(4096))          # [N], in the order of data.columns("test")
    """
    if not is_frame(x):
        return probabilities.predict(model, x, batch_size, verbose)
    probabilities.check(model)
    rows = _read(x, _dataset_of(model, data), model.reads)
    if rows.bad:
        _warn(rows, "have no score (NaN)")
    found = np.full(rows.number, np.nan, np.float32)
    found[rows.places] = probabilities.predict(model, rows.columns, batch_size or BATCH, verbose)
    return found


def evaluate(model: ClickModel, x: Any, data: Dataset | None = None) -> dict[str, Any]:
    """The metrics of a run's `metrics.json`: AUC, GAUC, log loss, normalised entropy, calibration,
    with intervals, also of unseen and rare users and items (`tfctr.metrics.evaluate`).

    Args:
        model: a backbone or a student.
        x: a `Dataset`, or rows with their label in a DataFrame with the columns of the log.
        data: as for `predict`.

    Returns:
        Of a DataFrame the metrics of its rows; bad rows are left out, with a warning, and so are
        those that the label of the dataset drops. Of a dataset `{"valid": {...}, "test": {...}}`,
        for the splits with rows.

    Raises:
        TypeError: the model is not one of clicks.
        ConfigError: as for `predict`; the label or the user is missing.
        DataError: a row of a dataset has no finite score.

    Example:

        tfctr.evaluate(model, df)["auc"]
        tfctr.metrics.print_report(tfctr.evaluate(model, data))
    """
    probabilities.check(model)
    if isinstance(x, Dataset):
        return {
            split: _measured(x, x.columns(split, measured_by(x)), predict_split(model, x, split))
            for split in ("valid", "test")
            if x.num_rows(split)
        }
    data = _dataset_of(model, data)
    config = data.manifest["config"]
    keys = [config[side] for side in ("user", "item") if config[side]]
    names = dict.fromkeys([*model.reads, *keys])
    rows = _read(x, data, names, Label.model_validate(config["label"]), keys)
    if rows.bad:
        _warn(rows, "are left out")
    is_example = ~np.isnan(rows.columns[LABEL])
    columns = {name: values[is_example] for name, values in rows.columns.items()}
    if not is_example.any():
        raise ConfigError(f"{NAME}: no row with a label is left to evaluate")
    inputs = {name: columns[name] for name in model.reads}
    return _measured(data, columns, model.predict(inputs, batch_size=BATCH, verbose=0))


def _measured(data: Dataset, columns: dict[str, np.ndarray], logits: np.ndarray) -> dict[str, Any]:
    segments = segments_of(data, columns)
    return metrics.evaluate(columns[LABEL], logits, columns.get(USER_KEY), segments)


class _Rows(NamedTuple):
    """The good rows of a DataFrame."""

    number: int  # of all rows
    places: np.ndarray  # int `[n]` of the good ones
    columns: dict[str, np.ndarray]  # as a model reads them; the label and the user's key if wanted
    bad: dict[str, int]  # by reason


def _read(
    frame: Any,
    data: Dataset,
    names: Iterable[str],
    label: Label | None = None,
    required: Iterable[str] = (),
) -> _Rows:
    features = [data.schema[name] for name in names]
    vocabularies = {
        f.vocabulary: Vocabulary.open(data.vocabulary_file(f.vocabulary), f.dtype, f.hash_buckets)
        for f in features
        if isinstance(f, TOKEN_KINDS)
    }
    user = data.manifest["config"]["user"]
    number, bad = 0, Counter[str]()
    places, parts = [], []
    with as_log(frame) as log:
        rows = RowsToScore([log], features, None, label, [*required])
        if rows.missing:
            raise ConfigError(
                f"{NAME}: no column {', '.join(map(repr, rows.missing))}; columns: "
                f"{', '.join(rows.names)}"
            )
        for piece in rows.reader.pieces():
            read = rows.read(piece)
            typed = {
                name: read.features[name].combine_chunks() for name in read.features.schema.names
            }
            part = {f.name: encoded(f, typed[f.name], vocabularies) for f in features}
            if label is not None:
                part[LABEL] = typed[LABEL].to_numpy(zero_copy_only=False)
                if user:
                    part[USER_KEY] = row_keys(typed[user])
            parts.append(part)
            places.append(number + typed[ROW].to_numpy())
            number += rows.reader.count(piece)
            bad.update(tally(read.bad))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Rows(number, np.concatenate(places), columns, dict(bad))


def _dataset_of(model: ClickModel, data: Dataset | None) -> Dataset:
    """The dataset given, or else that of the model's schema.

    Raises:
        ConfigError: there is none; its features are not those of the model.
    """
    if data is None:
        if model.schema.dataset is None:
            raise ConfigError(
                f"{model.name}: does not know the vocabularies of its data, as it was not created "
                "from a dataset's schema; give data=Dataset.open(DIRECTORY)"
            )
        data = Dataset.open(model.schema.dataset)
    there = {feature.name: feature for feature in data.schema}
    for name in model.reads:
        if name not in there:
            raise ConfigError(f"{model.name}: reads {name!r}, no feature of {data.directory}")
    for feature in model.schema.inputs:
        found = there.get(feature.name)
        if isinstance(feature, TOKEN_KINDS) and found and found.num_ids != feature.num_ids:
            raise ConfigError(
                f"{model.name}: feature {feature.name!r} has {feature.num_ids:,} ids, but "
                f"{found.num_ids:,} in {data.directory}; give the dataset that it was trained on"
            )
    return data


def _warn(rows: _Rows, what: str) -> None:
    why = ", ".join(f"{why} ({count:,})" for why, count in rows.bad.items())
    number = sum(rows.bad.values())
    warnings.warn(
        f"{NAME}: {number:,} of {rows.number:,} rows are bad and {what}: {why}", stacklevel=3
    )
