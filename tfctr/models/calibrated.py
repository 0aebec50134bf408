"""A trained model whose logits are calibrated."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.models.calibration import Map
from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student, readable, refuse_names

SEGMENT = "calibrated_by"  # this model's part of `encode_user`


@keras.saving.register_keras_serializable("tfctr")
class Calibrated(Student):
    """Gives the logits of a trained model after a map, which may depend on a feature's token.

    The map is linear between knots and strictly increasing, so within a token the order is that of
    the model. Until `set_maps` it changes nothing.

    Args:
        backbone: any `ClickModel`, trained.
        num_maps: int. Number `S` of maps.
        num_knots: int. The most knots of a map, `K`.
        by: name of the categorical feature that chooses the map. None: there is one for all.

    Example:
        >>> model = Calibrated(trained, num_maps=1, num_knots=2)  # doctest: +SKIP
        >>> model.build()  # doctest: +SKIP
        >>> model.set_maps([Map(np.array([-2.0, 2.0]), np.array([-1.0, 1.0]))])  # doctest: +SKIP
        >>> tfctr.predict(model, data.test(4096))  # doctest: +SKIP
    """

    own_tensors = (SEGMENT,)

    def __init__(
        self,
        backbone: ClickModel,
        num_maps: int,
        num_knots: int,
        by: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        refuse_names([feature.name for feature in backbone.served_schema], self.own_tensors)
        self.num_maps = num_maps
        self.num_knots = num_knots
        self.by = by
        fixed = {"trainable": False, "dtype": "float32", "autocast": False}
        zeros, ones = {"initializer": "zeros", **fixed}, {"initializer": "ones", **fixed}
        between = (num_maps, num_knots - 1)
        self.first = self.add_weight((num_maps, 1), name="first", **zeros)
        self.last = self.add_weight((num_maps, 1), name="last", **zeros)
        self.at_first = self.add_weight((num_maps, 1), name="at_first", **zeros)
        self.slope = self.add_weight((num_maps, 1), name="slope", **ones)
        self.starts = self.add_weight(between, name="starts", **zeros)
        self.widths = self.add_weight(between, name="widths", **zeros)
        self.slopes = self.add_weight(between, name="slopes", **zeros)
        self.map_of_id = None
        if by is not None:
            fixed["dtype"] = "int32"
            shape = (backbone.schema[by].num_ids,)
            self.map_of_id = self.add_weight(shape, name="map_of_id", initializer="zeros", **fixed)

    def build_parts(self) -> None:
        self.backbone.build()

    def set_maps(self, maps: Sequence[Map], map_of_id: np.ndarray | None = None) -> None:
        """Sets the maps, and for each id of the feature the number of its map, int `[ids]`."""
        of: dict[str, Any] = {name: np.array(getattr(self, name)) for name in _WEIGHTS}
        for i, (x, y, slope) in enumerate(maps):
            knots = len(x) - 1
            of["first"][i], of["last"][i] = x[0], x[-1]
            of["at_first"][i], of["slope"][i] = y[0], slope
            of["starts"][i, :knots], of["widths"][i, :knots] = x[:-1], np.diff(x)
            of["slopes"][i, :knots] = np.diff(y) / np.diff(x)
        for name, values in of.items():
            getattr(self, name).assign(values)
        if self.map_of_id is not None:
            self.map_of_id.assign(map_of_id)

    def calibrate(self, logits: Any, ids: Any = None) -> Any:
        """The calibrated logits `[B]` of logits `[B]` and, with `by`, ids `[B]` of the feature."""
        of = {name: getattr(self, name) for name in _WEIGHTS}
        if self.map_of_id is not None:
            number = ops.take(self.map_of_id, ids, axis=0)
            of = {name: ops.take(values, number, axis=0) for name, values in of.items()}
        z = ops.expand_dims(ops.cast(logits, "float32"), 1)
        outside = ops.minimum(z - of["first"], 0.0) + ops.maximum(z - of["last"], 0.0)
        found = of["at_first"] + of["slope"] * outside
        within = ops.clip(z - of["starts"], 0.0, of["widths"])
        return ops.squeeze(found, 1) + ops.sum(of["slopes"] * within, axis=1)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        logits = self.backbone.call(readable(self.backbone, features), training=training)
        return self.calibrate(logits, features[self.by] if self.by else None)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and `SEGMENT` `[B]`, if `by` is a feature of the user or context."""
        encoded = super().encode_user(features)
        if self.by is not None and self.by in features:
            encoded[SEGMENT] = features[self.by]
        return encoded

    def score(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        of_backbone = {n: tensor for n, tensor in user.items() if n not in self.own_tensors}
        logits = self.backbone.score(of_backbone, readable(self.backbone, items))
        shape = ops.shape(logits)
        ids = None
        if self.by is not None:
            ids = items[self.by] if self.by in items else user[SEGMENT][:, None]
            ids = ops.reshape(ops.broadcast_to(ids, shape), (-1,))
        return ops.reshape(self.calibrate(ops.reshape(logits, (-1,)), ids), shape)


_WEIGHTS = ("first", "last", "at_first", "slope", "starts", "widths", "slopes")
