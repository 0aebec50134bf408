"""A run is a graph of stages: each is built once, from the artefacts of others."""

from tfctr.stages.export import Export, Version
from tfctr.stages.predictions import Predictions
from tfctr.stages.prepare import Prepare, SideOutputs, prepare
from tfctr.stages.run import Run
from tfctr.stages.stage import Stage, build, folder_lock, in_order, print_plan
from tfctr.stages.student import create_model
from tfctr.stages.train import Train
from tfctr.stages.training import TrainingStage
from tfctr.work import DEFAULT_WORK

__all__ = [
    "DEFAULT_WORK",
    "Export",
    "Predictions",
    "Prepare",
    "Run",
    "SideOutputs",
    "Stage",
    "Train",
    "TrainingStage",
    "Version",
    "build",
    "create_model",
    "folder_lock",
    "in_order",
    "prepare",
    "print_plan",
]
