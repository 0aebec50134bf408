"""The config of distillation."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tfctr.config.base import from_file
from tfctr.config.method import Method, register
from tfctr.config.run import RunConfig, check_not_refitted

Teacher = Annotated[RunConfig, from_file(lambda: RunConfig)]


@register
class Distill(Method):
    """Trains the student on its teachers' probabilities too (Zhu et al., 2020, arXiv:2011.04106).

    The teachers are runs on the same dataset, however large: none of them is served.
    """

    name: Literal["distill"]
    teachers: tuple[Teacher, ...] = Field(min_length=1)  # the mean of their logits is learned
    weight: float = Field(0.5, gt=0, le=1)  # of the teachers' loss; that of the clicks has the rest
    temperature: float = Field(1.0, gt=0)  # above 1: logits are divided by it, in both losses' pair

    @field_validator("teachers")
    @classmethod
    def _differ(cls, teachers: tuple[RunConfig, ...]) -> tuple[RunConfig, ...]:
        names = [teacher.name for teacher in teachers]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"{name!r} is given twice")
        check_not_refitted(**{teacher.name: teacher for teacher in teachers})
        return teachers

    @property
    def parts(self) -> Mapping[str, Any]:
        return {f"teachers.{number}": teacher for number, teacher in enumerate(self.teachers)}

    def check(self, run: RunConfig) -> None:
        run.training.check_rows_weigh_the_same("teachers' logits are of all rows, so only 1 fits")

    def import_models(self) -> None:
        import tfctr.frameworks.distill.distillation  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.distill.stages import TeacherLogits

        return {teacher.name: TeacherLogits(run.other(teacher)) for teacher in self.teachers}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [*stages.values()]

    def trainee(self, model: Any, data: Any, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.distill.distillation import Distillation

        fields = [stage.field for stage in stages.values()]
        return Distillation(model, fields, self.weight, self.temperature)
