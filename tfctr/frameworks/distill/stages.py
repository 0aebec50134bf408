"""The stages before the student: teachers' logits of all rows."""

import logging
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import Fold
from tfctr.frameworks.distill.config import Scores
from tfctr.stages import Run, Stage
from tfctr.stages.prepare import MANIFEST
from tfctr.stages.train import Train


class TeacherLogits(Stage):
    """A teacher's logits of all rows of its dataset: `logits`, in the teacher's folder.

    With `folds` they are those of as many trainings of it, each without one fold of the training
    rows: `logits-<folds>-folds`.
    """

    name = "logits"
    manifest_name = MANIFEST

    def __init__(self, teacher: Run, folds: int | None = None) -> None:
        self.teacher = teacher
        self.trained = [teacher.trained]
        self.folder = self.path = teacher.folder / "logits"
        if folds:
            self.trained = [_without(teacher, Fold(index=i, folds=folds)) for i in range(folds)]
            self.folder = self.path = teacher.folder / f"logits-{folds}-folds"
        self.field = f"logit of {teacher.config.name}"
        self.reads = (*self.trained, *self.trained[0].side_outputs)

    @property
    def made_from(self) -> Any:
        return self.field

    def make(self, console: Console) -> None:
        from beam_pipelines.teacher_logits import write_logits

        name = self.teacher.config.name
        console.print(f"[bold]{self.name}[/] {name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        write_logits(
            [str(trained.path) for trained in self.trained],
            str(self.teacher.data_folder),
            [str(stage.path) for stage in self.trained[0].side_outputs],
            self.field,
            str(self.path),
            self.key(),
        )


def _without(teacher: Run, fold: Fold) -> Train:
    """The training of a teacher without a fold of the training rows."""
    config = teacher.config
    training = config.training.model_copy(update={"left_out": fold})
    name = f"{config.name}-without-{fold.index}-of-{fold.folds}"
    return teacher.other(config.model_copy(update={"name": name, "training": training})).trained


class ScoresOfRows(Stage):
    """Scores from elsewhere, beside the rows of a dataset: `<work>/<their name>`."""

    name = "scores"
    manifest_name = MANIFEST
    is_data = True

    def __init__(self, config: Scores, dataset: Stage, work: Path) -> None:
        self.config = config
        self.dataset = dataset
        self.folder = self.path = work / config.name
        self.field = f"logit of {config.name}"
        self.reads = (dataset,)

    @property
    def made_from(self) -> Any:
        from tfctr.data import files

        prints = [files.fingerprint(path) for path in self._paths()]
        return [self.field, self.config.row, self.config.column, self.config.kind, prints]

    def check(self) -> None:
        self._paths()

    def make(self, console: Console) -> None:
        from beam_pipelines.scores import described, write_scores

        config = self.config
        console.print(f"[bold]{self.name}[/] {config.name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        manifest = write_scores(
            self._paths(),
            config.column,
            str(self.dataset.path),
            self.field,
            str(self.path),
            row=config.row,
            is_logit=config.kind == "logit",
            key=self.key(),
        )
        console.print(described(manifest), highlight=False, soft_wrap=True)

    def _paths(self) -> list[str]:
        from tfctr.data.sources import paths_of

        return paths_of(self.config)
