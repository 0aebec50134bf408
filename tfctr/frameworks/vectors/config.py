"""The config of vectors from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from tfctr.config.method import Method, register
from tfctr.config.vectors import VectorTable
from tfctr.schema import Categorical, Name, Schema, check_has_tokens


class TableOfFields(VectorTable):
    """A table of vectors that are fields of the backbone."""

    feature: Name  # whose tokens have the vectors
    fields: int = Field(1, ge=1)  # that carry a vector


@register
class Vectors(Method):
    """Fields made of fixed vectors of the item, the user or the context, which need no training row
    of it."""

    by_days: ClassVar[bool] = True

    name: Literal["vectors"]
    tables: tuple[TableOfFields, ...] = Field(min_length=1)

    @field_validator("tables")
    @classmethod
    def _differ(cls, tables: tuple[TableOfFields, ...]) -> tuple[TableOfFields, ...]:
        names = [table.name for table in tables]
        names += [table.in_request for table in tables if table.in_request]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"{name!r} is given twice")
        return tables

    @property
    def made_again(self) -> str:
        return "tables"

    def check(self, run: Any) -> None:
        for table in self.tables:
            known = [f.name for f in run.data.feature_schema if isinstance(f, Categorical)]
            if table.feature not in known:
                raise ValueError(
                    f"tables: {table.name}: feature: found {table.feature!r}, which is no "
                    f"categorical feature; there are: {', '.join(known)}"
                )
            why = "each token needs a vector of its own"
            check_has_tokens(run.data.feature_schema[table.feature], f"tables: {table.name}", why)
            table.check_input(run, f"tables: {table.name}")

    def import_models(self) -> None:
        import tfctr.frameworks.vectors.student  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.stages.vectors import VectorsById

        return {
            table.name: VectorsById(table, table.feature, run.dataset, run.work)
            for table in self.tables
        }

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.vectors.student import VectorsStudent

        features = [table.feature for table in self.tables]
        read = [feature.name for feature in model.schema]
        return VectorsStudent(
            schema.select([*dict.fromkeys([*read, *features])]),
            model,
            features,
            # Before the stages are there, as when a config is checked, any width will do.
            [stages[table.name].width if stages else 1 for table in self.tables],
            [table.fields for table in self.tables],
            [table.in_request for table in self.tables],
        )

    def data_stages(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [*stages.values()]

    def set_data(self, model: Any, stages: Mapping[str, Any]) -> None:
        from tfctr.data.manifest import DataError

        for variable, stage in zip(model.tables, stages.values(), strict=True):
            table = stage.load(variable.shape[0])
            if variable.shape != table.shape:
                raise DataError(
                    f"{stage.path}: vectors of {table.shape[1]} numbers, and the student was "
                    f"trained with vectors of {variable.shape[1]}; train it again"
                )
            variable.assign(table)

    def latest(self, run: Any, log: Any, adds: bool) -> Mapping[str, Any]:
        from tfctr.stages.vectors import LatestVectors

        return {
            table.name: LatestVectors(table, table.feature, run.dataset, run.work)
            for table in self.tables
        }

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        for variable, stage in zip(model.scales, stages.values(), strict=True):
            variable.assign(stage.scale)
