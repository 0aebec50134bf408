"""Configs of the statistics of what similar users said of similar items."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tfctr.config.base import FolderName, from_file
from tfctr.config.data import DataConfig
from tfctr.config.method import Method, register
from tfctr.schema import (
    Categorical,
    History,
    MultiValued,
    Name,
    Schema,
    Strict,
    check_has_tokens,
)

POPULATIONS = 3  # of users, each with tables of its own: one half, the other half, all
ALL_USERS = 2  # the last
MOST_VALUES = 512  # of all attributes together
STORED = "numbers of statistics"  # a side output; no feature's name has spaces
APART = 0.8  # deviations from the mean of all grades from which on a grade is high, or low


class TablesConfig(Strict):
    """Tables of items, made of all users' events in the training period."""

    name: FolderName
    data: Annotated[DataConfig, from_file(lambda: DataConfig)]
    items: Name  # the history of the items
    grades: Name  # the history of what the user said of them: numbers, or clicks
    attributes: tuple[Name, ...] = ()  # features of items, e.g. genres, with few values each
    neighbours: int = Field(0, ge=0)  # most similar items, of each item
    factors: int = Field(16, ge=1)
    steps: int = Field(20, ge=1)  # of expectation maximisation

    @property
    def user(self) -> Categorical:
        """The feature that identifies users."""
        feature = next((f for f in self.data.features if f.source_column == self.data.user), None)
        if not isinstance(feature, Categorical):
            raise ValueError(
                f"data.user: no categorical feature of the column {self.data.user!r}; half of the "
                "users make the tables that the other half is trained with"
            )
        return feature

    @property
    def item(self) -> Categorical:
        """The feature whose vocabulary the history of items shares."""
        found: Categorical = self.data.feature_schema[self._history("items").vocabulary]
        return found

    @property
    def reads(self) -> list[str]:
        """The features that the statistics are computed from."""
        return [self.user.name, self.item.name, self.items, self.grades]

    @model_validator(mode="after")
    def _has_attributes(self) -> "TablesConfig":
        known = [f.name for f in self.data.feature_schema.side("item") if is_attribute(f)]
        for name in self.attributes:
            if name not in known:
                raise ValueError(
                    f"attributes: {name} is no categorical or multi_valued feature of the item's "
                    f"side; there are: {', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _has_histories(self) -> "TablesConfig":
        _ = self.user
        items, grades = self._history("items"), self._history("grades")
        if items.shares is None or self.item.side != "item":
            raise ValueError(
                f"items: {items.name} shares no feature of the item's side; write shares: and its "
                "name there"
            )
        check_has_tokens(grades, "grades", "a grade is read as a number")
        if items.max_length != grades.max_length:
            raise ValueError(
                f"grades: {grades.name} has max_length {grades.max_length} and {items.name} "
                f"{items.max_length}; both must hold the same events"
            )
        return self

    def _history(self, key: str) -> History:
        name = getattr(self, key)
        known = {f.name: f for f in self.data.feature_schema if isinstance(f, History)}
        if name not in known:
            raise ValueError(f"{key}: {name} is no history of the data; there are: {[*known]}")
        return known[name]


def is_attribute(feature: Any) -> bool:
    """Whether items can be told apart by a feature's tokens."""
    return isinstance(feature, Categorical | MultiValued)


def attribute_sizes(config: TablesConfig, schema: Schema) -> list[int]:
    """How many ids each attribute has, in order. `schema` is the dataset's.

    Raises:
        ValueError: there are too many.
    """
    sizes = [schema[name].num_ids for name in config.attributes]
    if sum(sizes) > MOST_VALUES:
        raise ValueError(
            f"attributes: {', '.join(config.attributes)} have {sum(sizes):,} values, and at most "
            f"{MOST_VALUES} are possible; leave out the largest, or raise its min_count"
        )
    return sizes


@register
class Statistics(Method):
    """A student that reads statistics of the user's events, computed in the request."""

    by_days: ClassVar[bool] = True
    reads_log: ClassVar[bool] = True

    name: Literal["statistics"]
    tables: Annotated[TablesConfig, from_file(lambda: TablesConfig)]
    fields: int = Field(4, ge=1)  # that carry the numbers to the backbone
    knots: int = Field(32, ge=2)  # of each number, with equally many training rows between them
    fading: float = Field(150.0, gt=0)  # events after which one weighs 1/e, where it weighs less
    # The same, of attributes, for which each adds numbers of its own.
    attribute_fadings: tuple[Annotated[float, Field(gt=0)], ...] = ()
    stored: bool = False  # the rows' numbers, once for all trainings; else each computes them anew

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"tables": self.tables}

    @property
    def made_again(self) -> str:
        return "tables"

    @property
    def of_numbers(self) -> list[float]:
        """What the numbers depend on, beside the tables: a stage that holds any is made of it."""
        return [self.fading, *self.attribute_fadings]

    @model_validator(mode="after")
    def _has_attributes(self) -> "Statistics":
        if self.attribute_fadings and not self.tables.attributes:
            raise ValueError(
                f"attribute_fadings: the tables {self.tables.name} have no attributes; name some "
                "there, or leave it out"
            )
        return self

    def check(self, run: Any) -> None:
        if (user := self.tables.user.name) in run.training.oov_rate:
            raise ValueError(
                f"training.oov_rate: statistics chooses the tables of a training row by {user}, so "
                f"that its own label is in none of them; leave {user} out"
            )
        if self.stored and (item := self.tables.item.name) in run.training.oov_rate:
            raise ValueError(
                f"training.oov_rate: stored numbers are those of the row's own {item}, never of an "
                f"unknown one; leave {item} out, or stored"
            )
        if self.stored and run.training.refit:
            raise ValueError(
                "training.refit: stored numbers of validation rows know all users' labels, also "
                "the rows' own; leave out stored"
            )

    def check_rollout(self) -> None:
        if self.stored:
            raise ValueError(
                "statistics: stored: a rollout makes the tables again every so many days, and all "
                "numbers with them; leave it out"
            )

    def check_teacher(self) -> None:
        if not self.stored:
            raise ValueError(
                "statistics: without stored numbers it is asked about a training row by the tables "
                "of all users, which know the row's label; write stored: true"
            )

    def import_models(self) -> None:
        import tfctr.frameworks.statistics.student  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.statistics.stages import Numbers, Scale, Tables

        tables = Tables(self.tables, run.dataset, run.work)
        found = {"tables": tables, "scale": Scale(self, tables)}
        return found | ({"numbers": Numbers(self, tables)} if self.stored else {})

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [stages["numbers"]] if self.stored else []

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.statistics.stages import create_statistics
        from tfctr.frameworks.statistics.student import StatisticsStudent

        config = self.tables
        names = [feature.name for feature in model.schema]
        student = StatisticsStudent(
            schema.select([*names, *config.reads]),
            model,
            create_statistics(self, schema),
            user=config.user.name,
            item=config.item.name,
            items=config.items,
            grades=config.grades,
            num_fields=self.fields,
        )
        student.reads_stored = self.stored
        return student

    def data_stages(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return (stages["tables"],)

    def set_data(self, model: Any, stages: Mapping[str, Any]) -> None:
        model.statistics.set_tables(stages["tables"].load())

    def latest(self, run: Any, log: Any, adds: bool) -> Mapping[str, Any]:
        from tfctr.frameworks.statistics.stages import LatestTables

        return {"tables": LatestTables(self.tables, log, adds, run.dataset, run.work)}

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        stages["scale"].assign(model.statistics)

    def served(self, model: Any) -> Any:
        from tfctr.frameworks.statistics.served import of_all_users

        return of_all_users(model)
