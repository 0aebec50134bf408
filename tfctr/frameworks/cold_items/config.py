"""The config of embeddings for items without training rows."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from tfctr.config.method import Method, register
from tfctr.config.vectors import VectorTable
from tfctr.schema import Categorical, Name, Schema, check_has_tokens


@register
class ColdItems(Method):
    """Gives items without training rows an embedding, made of their vectors and attributes.

    Some training rows are read as if their item were new (DropoutNet; Volkovs et al., 2017), and
    what is made is aligned with what is trained, as CTRL (arXiv:2306.02841) aligns two views of a
    row.
    """

    by_days: ClassVar[bool] = True

    name: Literal["cold_items"]
    feature: Name  # of the item's side, whose embedding is made
    vectors: VectorTable | None = None  # of this feature's tokens
    attributes: tuple[Name, ...] = ()  # further features of the item that the backbone reads
    hidden_units: tuple[int, ...] = (64,)
    dropout: float = Field(0.0, ge=0, lt=1)  # of what an embedding is made of
    least_rows: int = Field(1, ge=1)  # training rows from which on an item has its own embedding
    rate: float = Field(0.2, gt=0, le=1)  # share of the training rows whose item counts as new
    alignment: Literal["regression", "contrast", "none"] = "regression"
    weight: float = Field(0.1, gt=0)  # of the alignment's loss
    temperature: float = Field(0.1, gt=0)  # of the contrast

    @property
    def made_again(self) -> str:
        return "tables"

    def check(self, run: Any) -> None:
        known = [f.name for f in run.data.feature_schema.side("item") if isinstance(f, Categorical)]
        read = run.model.features or [f.name for f in run.data.feature_schema.inputs]
        if self.feature not in known or self.feature not in read:
            raise ValueError(
                f"frameworks.cold_items.feature: found {self.feature!r}; it must be a categorical "
                f"feature of the item's side that the backbone reads: "
                f"{', '.join(name for name in known if name in read) or 'there is none'}"
            )
        feature = run.data.feature_schema[self.feature]
        why = "no item is unknown: it has the vector of its bucket"
        check_has_tokens(feature, "frameworks.cold_items.feature", why)
        others = [f.name for f in run.data.feature_schema.side("item") if f.name in read]
        for name in self.attributes:
            if name not in others or name == self.feature:
                raise ValueError(
                    f"frameworks.cold_items.attributes: found {name!r}; the backbone's other "
                    f"features of the item's side are: "
                    f"{', '.join(other for other in others if other != self.feature)}"
                )
        if self.vectors is None and not self.attributes:
            raise ValueError("frameworks.cold_items: give vectors, or attributes, or both")
        if self.vectors is not None:
            self.vectors.check_input(run, "frameworks.cold_items.vectors")

    def import_models(self) -> None:
        import tfctr.frameworks.cold_items.student  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.cold_items.stages import RowsOfIds
        from tfctr.stages.vectors import VectorsById

        found: dict[str, Any] = {"rows": RowsOfIds(self.feature, run.dataset, run.work)}
        if self.vectors is not None:
            found["vectors"] = VectorsById(self.vectors, self.feature, run.dataset, run.work)
        return found

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.cold_items.student import ColdItemsStudent

        width = 0
        if self.vectors is not None:
            # Before the stages are there, as when a config is checked, any width will do.
            width = stages["vectors"].width if stages else 1
        return ColdItemsStudent(
            model,
            self.feature,
            width,
            self.attributes,
            self.hidden_units,
            self.dropout,
            self.rate,
            self.alignment,
            self.weight,
            self.temperature,
            self.vectors.in_request if self.vectors else None,
        )

    def data_stages(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [*stages.values()]

    def set_data(self, model: Any, stages: Mapping[str, Any]) -> None:
        ids = model.is_new.shape[0]
        model.is_new.assign(stages["rows"].load(ids) < self.least_rows)
        if "vectors" in stages:
            model.vectors.assign(stages["vectors"].load(ids))

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if "vectors" in stages:
            model.scale.assign(stages["vectors"].scale)
