"""The config of distillation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tfctr.config.base import FolderName, from_file
from tfctr.config.data import InputFiles
from tfctr.config.method import Method, register
from tfctr.config.run import RunConfig, check_not_refitted
from tfctr.schema import Categorical

Teacher = Annotated[RunConfig, from_file(lambda: RunConfig)]


class Scores(InputFiles):
    """What another model thinks of rows of the dataset: a column of Parquet files."""

    name: FolderName
    column: str
    row: str = "row_id"  # the column with each row's place in the log
    kind: Literal["probability", "logit"] = "probability"


@register
class Distill(Method):
    """Trains the student on its teachers' probabilities too (Zhu et al., 2020, arXiv:2011.04106).

    The teachers are runs on the same dataset, however large, or scores from elsewhere: none of them
    is served.
    """

    name: Literal["distill"]
    teachers: tuple[Teacher, ...] = ()  # the mean of all teachers' logits is learned
    scores: tuple[Scores, ...] = ()
    weight: float = Field(0.5, gt=0, le=1)  # of the teachers' loss; that of the clicks has the rest
    folds: int | None = Field(None, ge=2)  # a training of each teacher without each of these folds
    temperature: float = Field(1.0, gt=0)  # above 1: logits are divided by it, in both losses' pair
    pairs: float = Field(0.0, ge=0, le=1)  # of the teachers' loss, from pairs of a user's rows

    @field_validator("teachers")
    @classmethod
    def _not_refitted(cls, teachers: tuple[RunConfig, ...]) -> tuple[RunConfig, ...]:
        check_not_refitted(**{teacher.name: teacher for teacher in teachers})
        return teachers

    @field_validator("teachers")
    @classmethod
    def _do_not_know_labels(cls, teachers: tuple[RunConfig, ...]) -> tuple[RunConfig, ...]:
        for teacher in teachers:
            for method in teacher.frameworks:
                try:
                    method.check_teacher()
                except ValueError as error:
                    raise ValueError(f"{teacher.name}: {error}") from None
        return teachers

    @model_validator(mode="after")
    def _differ(self) -> "Distill":
        names = [teacher.name for teacher in self.teachers] + [s.name for s in self.scores]
        if not names:
            raise ValueError("teachers: there are none; give a run config, or scores")
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"teachers: {name!r} is given twice")
        for teacher in self.teachers if self.folds else ():
            if teacher.training.rows != "train" or teacher.training.left_out:
                raise ValueError(
                    f"folds: found {self.folds}; {teacher.name} does not learn from all training "
                    "rows, and folds are of these"
                )
        return self

    @property
    def parts(self) -> Mapping[str, Any]:
        return {f"teachers.{number}": teacher for number, teacher in enumerate(self.teachers)}

    def check(self, run: RunConfig) -> None:
        run.training.check_rows_weigh_the_same("teachers' logits are of all rows, so only 1 fits")
        if self.pairs and _user(run.data.features, run.data.user) is None:
            raise ValueError(
                f"pairs: found {self.pairs}; pairs are of one user's rows, and data has no "
                f"categorical feature of the column that `user` names, {run.data.user!r}"
            )

    def import_models(self) -> None:
        import tfctr.frameworks.distill.distillation  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.distill.stages import ScoresOfRows, TeacherLogits

        runs = {
            teacher.name: TeacherLogits(run.other(teacher), self.folds) for teacher in self.teachers
        }
        return runs | {s.name: ScoresOfRows(s, run.dataset, run.work) for s in self.scores}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [*stages.values()]

    def trainee(self, model: Any, data: Any, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.distill.distillation import Distillation

        fields = [stage.field for stage in stages.values()]
        user = _user(data.schema, data.manifest["config"]["user"])
        return Distillation(
            model, fields, self.weight, self.temperature, self.pairs, user if self.pairs else None
        )


def _user(features: Iterable[Any], column: str | None) -> str | None:
    """The name of the feature whose ids tell users apart."""
    found = (f.name for f in features if isinstance(f, Categorical) and f.source_column == column)
    return next(found, None)
