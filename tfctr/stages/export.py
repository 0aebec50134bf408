"""The stage that exports a trained model for TF Serving."""

from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import ConfigError
from tfctr.data.manifest import read_manifest
from tfctr.stages.calibrate import Calibrate
from tfctr.stages.stage import Stage, versions
from tfctr.stages.train import Train


class Version(Stage):
    """A version of a SavedModel; its number is known after it is written.

    A subclass implements `write`.

    Args:
        served: the folder of the versions.
    """

    def __init__(self, served: Path) -> None:
        self.served = served

    @property
    def path(self) -> Path:  # type: ignore[override]
        found = read_manifest(self.manifest_path) or {}
        return Path(found.get("version", self.served))

    @property
    def made_from(self) -> Any:
        return str(self.served)

    def write(self, console: Console) -> Path:
        """Writes a new version and returns its path."""
        raise NotImplementedError

    def make(self, console: Console) -> dict[str, Any]:
        console.print(f"[bold]{self.name}[/] -> {self.served}", soft_wrap=True)
        return {"version": str(self.write(console)), "versions": versions()}


class Export(Version):
    """The SavedModel of a run's student, `<export.directory>/<the run's name>/<version>`.

    Raises:
        ConfigError: the student reads features that a server does not have.
    """

    name = "export"

    def __init__(self, trained: Train, calibrated: Calibrate | None = None) -> None:
        config = trained.config
        super().__init__(Path(config.export.directory) / config.name)
        self.trained = trained
        self.calibrated = calibrated
        self.folder = trained.folder
        self.reads = (trained, *([calibrated] if calibrated else []))

    @property
    def made_from(self) -> Any:
        return super().made_from, self.trained.config.export.tables

    def check(self) -> None:
        config = self.trained.config
        for method in config.frameworks:
            if not method.is_served:
                raise ConfigError(
                    f"{config.name}: {method.name} reads side outputs, which a server does not "
                    "have; export a run that learns from it instead"
                )

    def student(self) -> Any:
        """The model to export."""
        return self.trained.load()

    def write(self, console: Console) -> Path:
        from tfctr import serving
        from tfctr.data.dataset import Dataset
        from tfctr.serving.model_directory import tidy

        data = Dataset.open(self.trained.dataset.path)
        student = self.student()
        for method in self.trained.config.frameworks:
            student = method.served(student)
        if self.calibrated is not None:
            student = self.calibrated.wrap(student)
        asked = self.trained.config.export
        version = serving.export(student, data, self.served, asked.tables)
        tidy(self.served, asked.keep)
        return version
