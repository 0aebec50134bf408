"""Losses and metrics of a model that gives logits."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

CHOSEN_BY_SHAPE = {  # names that Keras resolves when it sees the labels
    "accuracy": keras.metrics.BinaryAccuracy,
    "acc": keras.metrics.BinaryAccuracy,
    "crossentropy": keras.metrics.BinaryCrossentropy,
    "ce": keras.metrics.BinaryCrossentropy,
}


def check_loss(loss: Any) -> None:
    """Checks that `loss`, as `compile` takes it, is one of logits.

    A loss that Keras does not bring is taken as it is.

    Raises:
        ValueError: it takes probabilities; the message says what to write.
    """
    for found, instead in _of_probabilities(loss, keras.losses):
        either = f", or write {instead}" if instead else ""
        raise ValueError(
            f"loss: found {found}, which takes probabilities; this model gives logits. "
            f"Leave `loss` out, which is log loss of logits{either}"
        )


def check_metrics(metrics: Any, argument: str) -> None:
    """Checks that `metrics`, as `compile` takes them, are ones of logits.

    A metric that Keras does not bring is taken as it is.

    Args:
        metrics: a name, a function, an instance, or lists and dicts of these.
        argument: its name, for errors.

    Raises:
        ValueError: one takes probabilities; the message says what to write.
    """
    for found, instead in _of_probabilities(metrics, keras.metrics):
        way = f"Write {instead}" if instead else "Compute it from tfctr.predict(model, rows)"
        raise ValueError(
            f"{argument}: found {found}, which takes probabilities; this model gives logits. {way}"
        )


def _of_probabilities(given: Any, room: Any) -> Iterator[tuple[str, str]]:
    """Those that take probabilities, as one names them, and the same from logits.

    `room` is `keras.losses` or `keras.metrics`.
    """
    for found in keras.tree.flatten(given):
        if _takes_probabilities(found, room):
            yield _shown(found), _from_logits(found, room)


def _takes_probabilities(found: Any, room: Any) -> bool:
    of_keras, config = _resolved(found, room)
    if of_keras is None or "hinge" in of_keras.__name__.lower():
        return False
    thresholds = keras.tree.flatten(config.get("thresholds", config.get("threshold")))
    at_zero = all(threshold == 0 for threshold in thresholds)  # the logit of one half
    return not (config.get("from_logits") or at_zero)


def _resolved(found: Any, room: Any) -> tuple[Any, Mapping[str, Any]]:
    """A class or function of Keras', and its arguments; None if it is not one of Keras'."""
    if isinstance(found, str):
        found = CHOSEN_BY_SHAPE.get(found.lower()) or room.get(found)
    if inspect.isclass(found):
        found = found()
    if type(found) is keras.metrics.MeanMetricWrapper:  # of any function
        return _own(found._fn), found._fn_kwargs
    if isinstance(found, keras.metrics.Metric | keras.losses.Loss):
        own = _own(type(found))
        # A function's arguments are not all in a loss' attributes, nor in its config.
        return own, (found.get_config() | vars(found)) if own else {}
    return _own(found), {}


def _own(found: Any) -> Any:
    is_keras = (getattr(found, "__module__", None) or "").startswith("keras.src.")
    return found if is_keras else None


def _from_logits(found: Any, room: Any) -> str:
    """The same from logits, as one writes it; empty if there is none."""
    own, _ = _resolved(found, room)
    if inspect.isfunction(own):
        class_name = "".join(word.capitalize() for word in own.__name__.split("_"))
        own = getattr(room, class_name, own)
    if own is keras.metrics.AUC:
        return "tfctr.metrics.AUC()"
    room_name = "metrics" if room is keras.metrics else "losses"
    for argument, value in (("from_logits", True), ("thresholds", 0.0), ("threshold", 0.0)):
        if argument in inspect.signature(own).parameters:
            return f"keras.{room_name}.{own.__name__}({argument}={value})"
    return ""


def _shown(found: Any) -> str:
    if isinstance(found, str):
        return repr(found)
    return getattr(found, "__name__", None) or f"{type(found).__name__}(...)"
