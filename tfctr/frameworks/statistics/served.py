"""A student of statistics as it is served: with the tables of all users only."""

from typing import Any

import keras
import numpy as np

from tfctr.models.click_model import ClickModel


def of_all_users(student: ClickModel) -> ClickModel:
    """A copy of a trained `StatisticsStudent`, or of a student around one, for a server.

    The tables of both halves of the users are only for training; they are two thirds of the size.
    """
    config = keras.saving.serialize_keras_object(student)
    _keep_all_users(config)
    served = keras.saving.deserialize_keras_object(config)
    served.build()
    for weight, source in zip(served.weights, student.weights, strict=True):
        values = np.asarray(keras.ops.convert_to_numpy(source))
        # The rows of all users are the last of a table.
        weight.assign(values[-weight.shape[0] :] if values.shape != weight.shape else values)
    return served


def _keep_all_users(config: Any) -> None:
    """Changes the config of each `UserStatistics` inside."""
    if isinstance(config, list):
        for inner in config:
            _keep_all_users(inner)
    if isinstance(config, dict):
        if config.get("class_name") == "UserStatistics":
            config["config"]["populations"] = 1
        for inner in config.values():
            _keep_all_users(inner)
