"""The stage before the student: a teacher's logits of all rows."""

import logging
from typing import Any

from rich.console import Console

from tfctr.stages import Run, Stage
from tfctr.stages.prepare import MANIFEST


class TeacherLogits(Stage):
    """A trained teacher's logits of all rows of its dataset: `logits`, in the teacher's folder."""

    name = "teacher"
    manifest_name = MANIFEST

    def __init__(self, teacher: Run) -> None:
        self.teacher = teacher
        self.trained = teacher.trained
        self.folder = self.path = teacher.folder / "logits"
        self.field = f"logit of {teacher.config.name}"
        self.reads = (self.trained, *self.trained.side_outputs)

    @property
    def made_from(self) -> Any:
        return self.field

    def make(self, console: Console) -> None:
        from beam_pipelines.teacher_logits import write_logits

        name = self.teacher.config.name
        console.print(f"[bold]{self.name}[/] {name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        write_logits(
            str(self.trained.path),
            str(self.teacher.data_folder),
            [str(stage.path) for stage in self.trained.side_outputs],
            self.field,
            str(self.path),
            self.key(),
        )
