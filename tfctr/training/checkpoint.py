"""Checkpoints, from which a killed training resumes: its state and its variables.

Keras' `BackupAndRestore` begins an interrupted epoch again at its first batch, and its
`EarlyStopping` forgets the best epoch when `fit` begins. Here a training that was killed ends with
the same weights as one that was not.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfctr.data import files
from tfctr.models.schema_model import SchemaModel


@dataclass
class TrainingState:
    """How far a training is; a checkpoint holds this and the variables."""

    epoch: int = 0  # number of finished epochs
    step: int = 0  # number of finished steps of the next one
    best_epoch: int = -1
    best_score: float = float("nan")  # of the best epoch, once there is one
    history: list[dict[str, float]] = field(default_factory=list)


def save_weights(model: SchemaModel, path: Path) -> None:
    """Writes the model's variables, without the optimizer's."""
    _write(path, dict(_arrays(model.variables)))


def load_weights(model: SchemaModel, path: Path) -> None:
    """Assigns the variables that `save_weights` wrote."""
    _assign(model.variables, np.load(path))


def save(model: SchemaModel, state: TrainingState, path: Path) -> None:
    """Writes a checkpoint: the state, and the variables of the model and of its optimizer."""
    arrays = dict(_arrays([*model.variables, *model.optimizer.variables]))
    packed = np.frombuffer(json.dumps(asdict(state)).encode(), np.uint8)
    _write(path, arrays | {"state": packed})


def restore(model: SchemaModel, path: Path) -> TrainingState | None:
    """Assigns the variables of a checkpoint, and returns its state.

    Returns:
        None if there is no checkpoint, or if it has another number of variables.
    """
    if not path.is_file():
        return None
    arrays = np.load(path, allow_pickle=False)
    variables = [*model.variables, *model.optimizer.variables]
    if len(arrays.files) != len(variables) + 1:
        return None
    _assign(variables, arrays)
    return TrainingState(**json.loads(arrays["state"].tobytes()))


def clean_up(folder: Path) -> None:
    """Removes checkpoints, best weights, and unfinished files of killed trainings."""
    for pattern in ("*checkpoint.npz*", "*best.npz*"):
        for path in folder.glob(pattern):
            path.unlink()


def _arrays(variables: list[Any]) -> Iterator[tuple[str, np.ndarray]]:
    # Named by position: paths are not unique among an optimizer's slots.
    for i, variable in enumerate(variables):
        yield str(i), np.asarray(keras.ops.convert_to_numpy(variable))


def _assign(variables: list[Any], arrays: Any) -> None:
    for i, variable in enumerate(variables):
        values = arrays[str(i)]
        if values.dtype.kind == "V":  # a file does not know bfloat16
            values = values.view(tf.as_dtype(variable.dtype).as_numpy_dtype)
        variable.assign(values)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    files.write_arrays(str(path), arrays)
