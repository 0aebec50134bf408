"""One `tfctr train` for tests/training/test_distribution.py, in a process of its own.

    python -m tests.training.train_on_devices STRATEGY WORK NAME CLIPNORM

Trains on WORK/world, into WORK/NAME. `mirrored` gets two logical CPUs.
"""

import sys
from pathlib import Path

import tensorflow as tf
from rich.console import Console

from tests.conftest import world_config
from tfctr.config import RunConfig
from tfctr.stages import Run


def main(strategy: str, work: str, name: str, clipnorm: str) -> None:
    cpus = [tf.config.LogicalDeviceConfiguration()] * (2 if strategy == "mirrored" else 1)
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    config = RunConfig.model_validate(
        {
            "name": name,
            "data": world_config(),
            "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [8]},
            "training": {
                "batch_size": 500,
                "epochs": 2,
                "in_memory": True,
                "strategy": strategy,
                "optimizer": {
                    "learning_rate": 0.01,
                    "embedding_l2": 1e-3,
                    "global_clipnorm": float(clipnorm) or None,
                },
            },
        }
    )
    Run(config, Path(work), Console(quiet=True)).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
