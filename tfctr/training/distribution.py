"""Training on several devices, or several machines, with `tf.distribute`."""

import functools
import json
import os

import tensorflow as tf

from tfctr.data.dataset import Part
from tfctr.data.manifest import DataError


def open_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a config; call it before any other use of TensorFlow.

    - one_device: TensorFlow's own placement.
    - mirrored: a replica on each GPU of this machine or, without GPUs, on each logical CPU.
    - multi_worker: a replica on each GPU of each machine. The environment variable `TF_CONFIG`
      names all machines and this one, as TensorFlow documents it. All run the same command.

    Raises:
        DataError: multi_worker without a `TF_CONFIG` that names workers and a task.
    """
    if name == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices(kind)]
        )
    if name == "multi_worker":
        try:
            found = json.loads(os.environ["TF_CONFIG"])
            _ = found["cluster"]["worker"], found["task"]["type"], found["task"]["index"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "training.strategy: multi_worker needs the environment variable TF_CONFIG, such as "
                '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                '"task": {"type": "worker", "index": 0}}; '
                f"found {os.environ.get('TF_CONFIG')!r} ({type(error).__name__}: {error})"
            ) from None
        return _multi_worker()
    return tf.distribute.get_strategy()


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    """One a process: with a second one the workers would have to agree on its collectives too."""
    return tf.distribute.MultiWorkerMirroredStrategy()


def part(strategy: tf.distribute.Strategy) -> Part:
    """The part of the training rows that this process reads."""
    resolver = strategy.cluster_resolver
    workers = len(resolver.cluster_spec().as_dict().get("worker", [])) if resolver else 0
    if not workers:
        return Part(replicas=strategy.num_replicas_in_sync)
    return Part(resolver.task_id, workers, strategy.num_replicas_in_sync // workers)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of the training."""
    return part(strategy).worker == 0


def agreed(strategy: tf.distribute.Strategy, value: float) -> float:
    """The mean of the workers' values, the same number on each.

    Different machines may round differently, and all must take the same decision.
    """
    if part(strategy).workers == 1:
        return value
    local = strategy.run(lambda: tf.constant(value, tf.float64))
    return float(strategy.reduce(tf.distribute.ReduceOp.MEAN, local, axis=None))


def wait(strategy: tf.distribute.Strategy) -> None:
    """Waits for all workers."""
    agreed(strategy, 0.0)
