"""A run config as a graph of stages."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import ConfigError, DataConfig, RunConfig
from tfctr.data.manifest import read_manifest
from tfctr.stages.baselines import Baselines
from tfctr.stages.calibrate import Calibrate
from tfctr.stages.evaluate import Evaluate
from tfctr.stages.export import Export
from tfctr.stages.predictions import Predictions
from tfctr.stages.prepare import Prepare
from tfctr.stages.refresh import Refresh
from tfctr.stages.stage import Stage, build, check, in_order
from tfctr.stages.train import Train
from tfctr.work import DEFAULT_WORK


class Run:
    """The stages of one run config, from the dataset to the export.

    A requested stage is built after the stages that it reads. Artefacts:

    - `data_folder`, `<work>/<data's name>`: the dataset directory, shared by runs;
    - `folder`, `<work>/<run's name>`: `model.keras` and its `vocabularies`, `metrics.json`,
      `<split>.parquet` with the model's logits, `predictions` if they are wanted, and the
      manifests;
    - `export_folder`: the versions of the SavedModel.

    Args:
        config: of the run.
        work: the folder of all artefacts.
        console: for progress.
        beam_args: options for Beam.
    """

    def __init__(
        self,
        config: RunConfig,
        work: Path = DEFAULT_WORK,
        console: Console | None = None,
        beam_args: Sequence[str] | None = None,
    ) -> None:
        self.config = config
        self.work = work
        self.console = console or Console()
        self.beam_args = beam_args

    @property
    def folder(self) -> Path:
        return self.work / self.config.name

    @property
    def data_folder(self) -> Path:
        return self.work / self.config.data.name

    @property
    def export_folder(self) -> Path:
        return self.exported.served

    # --- the graph ------------------------------------------------------------------------------

    @cached_property
    def dataset(self) -> Prepare:
        return Prepare(self.config.data, self.data_folder, self.beam_args)

    @cached_property
    def before(self) -> Mapping[str, Mapping[str, Stage]]:
        """The stages that methods need before the student's training, by method and role."""
        return {method.name: method.stages(self) for method in self.config.frameworks}

    @cached_property
    def earlier(self) -> "Run | None":
        """The earlier run that the training starts from; None if there is none or it is a file."""
        earlier = self.config.starts_from
        return self.other(earlier) if isinstance(earlier, RunConfig) else None

    @cached_property
    def trained(self) -> Train:
        earlier = self.earlier.trained if self.earlier else None
        return Train(self.config, self.work, self.dataset, self.before, earlier)

    @cached_property
    def calibrated(self) -> Calibrate | None:
        """None: the config wants no calibration."""
        config = self.config.calibration
        return None if config is None else Calibrate(self.trained, config)

    @cached_property
    def evaluated(self) -> Evaluate:
        return Evaluate(self.trained, self.calibrated)

    @cached_property
    def baselines(self) -> Baselines:
        return Baselines(self.dataset, self.work)

    @cached_property
    def predictions(self) -> Predictions:
        return Predictions(self.evaluated)

    @cached_property
    def exported(self) -> Export:
        return Export(self.trained, self.calibrated)

    def other(self, config: RunConfig) -> "Run":
        """Another run, in the same work folder."""
        return Run(config, self.work, self.console, self.beam_args)

    # --- requests -------------------------------------------------------------------------------

    def prepare(self) -> dict[str, Any]:
        """Builds the dataset, and the side outputs that any training of the run reads; returns the
        dataset's manifest.

        Raises:
            ConfigError: a model of the run cannot be created.
        """
        check(self.trained)
        for stage in in_order(self.trained):
            if stage.is_data:
                build(stage, self.console)
        return read_manifest(self.dataset.manifest_path) or {}

    def train(self) -> Path:
        """The trained model's path: `model.keras`, with the best weights."""
        return build(self.trained, self.console)

    def evaluate(self) -> Path:
        """The path of `metrics.json`; writes the predictions too if the config wants them.

        Prints what simple models have beside it, and warns where it is below them, also if nothing
        was left to do.
        """
        path = build(self.evaluated, self.console)
        if self.config.predictions:
            build(self.predictions, self.console)
        self.evaluated.warn(self.console)
        build(self.baselines, self.console)
        self.baselines.print_beside(read_manifest(path) or {}, self.console)
        return path

    def export(self) -> Path:
        """The path of the SavedModel's version.

        Raises:
            ConfigError: the model reads features that a server does not have.
        """
        self.exported.check()
        return build(self.exported, self.console)

    def index(self, k: int = 100, search: str = "exact") -> Path:
        """The path of the version of an index of next items.

        Raises:
            ConfigError: no method of the run has one; k is too many; scann is not installed.
        """
        for method in self.config.frameworks:
            stage = method.index(self, self.before[method.name], k, search)
            if stage is not None:
                return build(stage, self.console)
        raise ConfigError(
            f"{self.config.name}: none of its methods pre-trains a sequence encoder, which "
            "predicts the next item"
        )

    def refresh(self, log: DataConfig | None = None, adds: bool = False) -> Path:
        """The path of a further version: the same weights, and the latest data of its methods.

        Args:
            log: of later events, for methods that read a log.
            adds: bool. Whether its events are added to those of the last refresh. Defaults to
                False.

        Raises:
            ConfigError: no method has data; a log is missing, or none is read.
            DataError: the weights were not trained with this config and dataset.
        """
        name, methods = self.config.name, self.config.frameworks
        reading = [method.name for method in methods if method.reads_log]
        if log is None and reading:
            raise ConfigError(f"{name}: {', '.join(reading)}: made of a later log; give --log FILE")
        if log is not None and not reading:
            raise ConfigError(f"{name}: --log: none of its methods reads a log")
        if log is None and adds:
            raise ConfigError(f"{name}: --add: adds the events of --log, which is not given")
        latest = {method.name: method.latest(self, log, adds) for method in methods}
        latest = {name: stages for name, stages in latest.items() if stages}
        if not latest:
            raise ConfigError(f"{name}: frameworks: none has data that can be refreshed")
        return build(Refresh(self.trained, latest, self.calibrated), self.console)

    def open_data(self) -> Any:
        """The dataset, with the side outputs that the student reads."""
        return self.trained.open_data()

    def load_model(self) -> Any:
        """The trained model, with its calibration if the config wants one.

        Raises:
            DataError: there is none, or it belongs to another config or other data.
        """
        model = self.trained.load()
        return model if self.calibrated is None else self.calibrated.wrap(model)
