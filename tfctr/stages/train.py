"""The stage that trains a run's student."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import ConfigError, RunConfig, digest
from tfctr.data.manifest import DataError, read_manifest
from tfctr.stages.prepare import Prepare
from tfctr.stages.stage import Stage
from tfctr.stages.student import check_student, create_parts, import_models
from tfctr.stages.training import TrainingStage

BUT_FOR_DATA = "key_but_for_data"  # of the manifest


class Train(TrainingStage):
    """`model.keras`, the student with the best weights or refitted, and its `vocabularies`.

    Args:
        config: of the run.
        work: the folder of the run's folder, `<work>/<run's name>`.
        dataset: the stage of the dataset.
        stages: those before the student's training, by method and role.
        earlier: the training stage of the run that this one starts from, if there is one.
    """

    name = "train"

    def __init__(
        self,
        config: RunConfig,
        work: Path,
        dataset: Prepare,
        stages: Mapping[str, Mapping[str, Stage]],
        earlier: "Train | None" = None,
    ) -> None:
        self.config = config
        self.training = config.training
        self.folder = work / config.name
        self.path = self.folder / "model.keras"
        self.dataset = dataset
        self.stages = stages
        self.earlier = earlier
        self.side_outputs = [
            stage
            for method in config.frameworks
            for stage in method.side_outputs(stages[method.name])
        ]
        # An earlier student already contains all that methods train before.
        before = [stage for made in stages.values() for stage in made.values()]
        if config.starts_from is not None:
            before = [
                stage
                for method in config.frameworks
                for stage in method.data_stages(stages[method.name])
            ]
            before += [*self.side_outputs, *([earlier] if earlier else [])]
        self.reads = tuple(dict.fromkeys([dataset, *before]))

    @property
    def made_from(self) -> Any:
        # Methods with their parts, since not every part is a stage in `reads`.
        parts = (self.config.model, self.config.training, *self.config.frameworks)
        own = [digest(part) for part in parts]
        if isinstance(self.config.starts_from, Path):
            own.append(self._earlier_model().key())
        return own

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that the student's weights do not come from."""
        return ("test",) if self.training.refit else ("valid", "test")

    def open_data(self) -> Any:
        """The dataset, with the side outputs that the student reads.

        Raises:
            DataError: one of them is missing or was made with another config.
        """
        from tfctr.data.dataset import Dataset

        for stage in (self.dataset, *self.side_outputs):
            if not stage.is_done():
                raise DataError(f"{stage.path}: not there as configured; run `tfctr prepare`")
        return Dataset.open(self.dataset.path, [stage.path for stage in self.side_outputs])

    def check(self) -> None:
        super().check()
        check_student(self.config, f"{self.config.name}: model: ")

    def import_models(self) -> None:
        import_models(self.config.frameworks)

    def make(self, console: Console) -> None:
        from tfctr.training.earlier_model import VOCABULARIES

        data = self.open_data()
        student: Any = None

        def create() -> Any:
            nonlocal student
            student = model = self.create_student(data, console)
            for method in self.config.frameworks:
                model = method.trainee(model, data, self.stages[method.name])
            return model

        def save(_: Any, path: str) -> None:
            data.copy_vocabularies(self.folder / VOCABULARIES)
            student.save(path, include_optimizer=False)

        console.print(f"[bold]train[/] {self.config.model.backbone} -> {self.path}", soft_wrap=True)
        about = {
            BUT_FOR_DATA: self.key_but_for_data(),
            "model": self.config.model.model_dump(mode="json"),
        }
        self.train(create, data, about, console, save)

    def create_student(self, data: Any, console: Console) -> Any:
        """The student before its training: built, with its initial weights."""
        schema, earlier = data.schema, None
        if self.config.starts_from is not None:
            earlier = self._earlier_model()
            schema = earlier.with_its_numbers(schema)
        student, parts = create_parts(self.config, schema, self.stages)
        student.build()
        for method, part in parts:
            method.set_data(part, self.stages[method.name])
        if earlier is not None:
            earlier.initialize(student, data, console)
            return student
        for method, part in parts:
            method.start(part, self.stages[method.name])
        return student

    def key_but_for_data(self) -> str:
        """The key without the stages of `Method.data_stages`, whose data a refresh replaces: it
        says what the weights were learned from."""
        data = [
            stage
            for method in self.config.frameworks
            for stage in method.data_stages(self.stages[method.name])
        ]
        keys = [
            stage.key_but_for_data() if isinstance(stage, Train) else stage.key()
            for stage in self.reads
            if stage not in data
        ]
        return digest([self.name, self.made_from, *keys])

    def refuse_untrained(self, but_for_data: bool = False) -> None:
        """Checks that the model was trained, with this config and data.

        Args:
            but_for_data: whether the data of methods may be other than it was then. Defaults to
                False.

        Raises:
            DataError: there is none, or it belongs to another config or other data.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path}: no trained model; run `tfctr train` first")
        found = (read_manifest(self.manifest_path) or {}).get(BUT_FOR_DATA)
        is_same = but_for_data and found == self.key_but_for_data()
        if not (is_same or self.is_done()):
            raise DataError(
                f"{self.path}: trained with another config or other data; run `tfctr train` again"
            )

    def load(self, but_for_data: bool = False) -> Any:
        """The trained model; argument and errors as for `refuse_untrained`."""
        self.refuse_untrained(but_for_data)
        import keras

        return keras.models.load_model(self.path)

    def _earlier_model(self) -> Any:
        """The model that the training starts from.

        Raises:
            ConfigError: it is this run's own model.
            DataError: it is missing or incomplete.
        """
        from tfctr.training.earlier_model import EarlierModel

        start = self.config.starts_from
        path = self.earlier.path if self.earlier else start
        assert isinstance(path, Path)
        if path.resolve() == self.path.resolve():
            raise ConfigError(
                f"{self.config.name}: starts_from: {path} is what this run writes; give it another "
                "name"
            )
        return EarlierModel(path)
