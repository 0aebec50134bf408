"""Configs of ROK and of its teacher."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tfctr.config.base import FolderName, from_file
from tfctr.config.data import DataConfig
from tfctr.config.method import Method, register
from tfctr.config.run import RunConfig, check_names, check_not_refitted
from tfctr.config.training import PartTraining
from tfctr.frameworks.statistics.config import TablesConfig
from tfctr.retrieval.config import RetrievalConfig
from tfctr.schema import History, Schema, Strict


@register
class Rim(Method):
    """A model that also reads the similar earlier rows of each row: the backbone `rim`."""

    name: Literal["rim"]
    similar: Annotated[RetrievalConfig, from_file(lambda: RetrievalConfig)]

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"similar": self.similar}

    @property
    def is_served(self) -> bool:
        return False  # a server has no similar rows

    def check(self, run: RunConfig) -> None:
        if run.model.backbone != "rim":
            raise ValueError(
                f"model.backbone: found {run.model.backbone!r}, which does not read the rows that "
                "frameworks.rim.similar names; rim does"
            )

    def import_models(self) -> None:
        import tfctr.frameworks.rok.rim  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.rok.stages import Retrieve

        return {"similar": Retrieve(self.similar, run.dataset, run.work, run.console)}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [stages["similar"]]


class KnowledgeConfig(Strict):
    """ROK's knowledge base: it learns to predict a teacher's hint from the row alone."""

    name: FolderName
    teacher: Annotated[RunConfig, from_file(lambda: RunConfig)]
    embedding_dim: int = Field(16, ge=1)
    hidden_units: tuple[int, ...] = (256, 256)
    dropout: float = Field(0.1, ge=0, lt=1)
    imitation: float = Field(1.0, ge=0)  # weight of the imitation loss
    contrastive: float = Field(0.1, ge=0)  # weight of the contrastive loss
    clicks: float = Field(0.0, ge=0)  # weight of the log loss of the rows' own clicks
    mask_rate: float = Field(0.2, gt=0, lt=1)  # share of the fields that the contrastive loss masks
    temperature: float = Field(0.2, gt=0)
    training: PartTraining = PartTraining()

    @property
    def data(self) -> DataConfig:
        return self.teacher.data

    @property
    def is_pretrained(self) -> bool:
        return bool(self.imitation or self.contrastive or self.clicks)

    @property
    def losses(self) -> Mapping[str, float]:
        """The arguments of `Imitation` that weigh and shape its losses."""
        names = ("imitation", "contrastive", "clicks", "mask_rate", "temperature")
        return {name: getattr(self, name) for name in names}

    def create(self, schema: Schema) -> Any:
        """An untrained knowledge base, with the shape of its teacher's hints. `schema` is the
        dataset's."""
        from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
        from tfctr.frameworks.rok.rim import RIM
        from tfctr.stages import create_model

        teacher = create_model(self.teacher, schema)
        assert isinstance(teacher, RIM)
        return KnowledgeBase(
            schema.select([feature.name for feature in teacher.of_found]),
            teacher.num_aggregates,
            teacher.field_dim,
            self.embedding_dim,
            self.hidden_units,
            self.dropout,
        )

    @model_validator(mode="after")
    def _has_a_teacher(self) -> "KnowledgeConfig":
        rim = self.teacher.method("rim")
        if rim is None:
            raise ValueError(
                f"teacher: {self.teacher.name} is no teacher; name a run with frameworks: "
                "[{name: rim, similar: ...}]"
            )
        check_names(self.name, data=self.data, similar=rim.similar, teacher=self.teacher)
        check_not_refitted(teacher=self.teacher)
        return self


@register
class Rok(Method):
    """A student with a knowledge base (ROK, arXiv:2404.18304)."""

    name: Literal["rok"]
    knowledge: Annotated[KnowledgeConfig, from_file(lambda: KnowledgeConfig)]
    use: tuple[Literal["instance", "feature"], ...] = Field(("instance", "feature"), min_length=1)
    tuned: bool = False  # the knowledge base is trained together with the student

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"knowledge": self.knowledge}

    def import_models(self) -> None:
        import tfctr.frameworks.rok.student  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.rok.stages import Hints, Imitate

        if not self.knowledge.is_pretrained:
            return {}
        hints = Hints(run.other(self.knowledge.teacher))
        return {"hints": hints, "knowledge": Imitate(self.knowledge, hints, run.work)}

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.rok.student import RokStudent

        return RokStudent(model, self.knowledge.create(schema), self.use, self.tuned)

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if self.knowledge.is_pretrained:
            model.knowledge.set_weights(stages["knowledge"].load().get_weights())


class NeighboursConfig(Strict):
    """The teacher of the second form: what neighbours say of each row, by two searches among all
    earlier rows."""

    name: FolderName
    tables: Annotated[TablesConfig, from_file(lambda: TablesConfig)]
    users: int = Field(30, ge=1)  # most similar ones that count
    latest: int = Field(500, ge=1)  # rows of an item that are searched for them

    @property
    def data(self) -> DataConfig:
        return self.tables.data

    @model_validator(mode="after")
    def _has_similar_items(self) -> "NeighboursConfig":
        if not self.tables.neighbours:
            raise ValueError(
                f"tables: {self.tables.name} has no similar items; set neighbours there, e.g. 50"
            )
        check_names(self.name, data=self.data, tables=self.tables)
        return self


class HistoryKnowledgeConfig(Strict):
    """The knowledge base of the second form: it reads the user's history and the candidate."""

    name: FolderName
    teacher: Annotated[NeighboursConfig, from_file(lambda: NeighboursConfig)]
    features: tuple[str, ...] | None = None  # besides the history; None: all but the user's id
    embedding_dim: int = Field(16, ge=1)  # of these features
    state_dim: int = Field(32, ge=1)  # of an event, and so of each sum over the history
    sums: int = Field(4, ge=2)  # over the history, half of which forget
    fading: float = Field(60.0, gt=0)  # events after which one weighs 1/e, where sums forget
    hidden_units: tuple[int, ...] = Field((256, 128), min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    imitation: float = Field(1.0, ge=0)  # weight of the imitation loss
    clicks: float = Field(0.0, ge=0)  # weight of the log loss of the rows' own clicks
    training: PartTraining = PartTraining()

    @property
    def data(self) -> DataConfig:
        return self.teacher.data

    @property
    def reads(self) -> list[str]:
        """The features besides the history."""
        if self.features is not None:
            return list(self.features)
        user = self.teacher.tables.user.name
        inputs = self.data.feature_schema.inputs
        return [f.name for f in inputs if not isinstance(f, History) and f.name != user]

    @property
    def losses(self) -> Mapping[str, float]:
        """The arguments of `Imitation` that weigh and shape its losses."""
        without_views = {"contrastive": 0.0, "mask_rate": 0.0, "temperature": 1.0}
        return {"imitation": self.imitation, "clicks": self.clicks} | without_views

    def create(self, schema: Schema) -> Any:
        """An untrained knowledge base, for its teacher's hints. `schema` is the dataset's."""
        from tfctr.frameworks.rok.history_knowledge import HistoryKnowledge
        from tfctr.frameworks.rok.similar_users import NUMBERS as OF_USERS
        from tfctr.frameworks.statistics.neighbour_statistics import NUMBERS as OF_ITEMS

        tables = self.teacher.tables
        return HistoryKnowledge(
            schema.select([*self.reads, tables.items, tables.grades]),
            tables.items,
            tables.grades,
            OF_ITEMS + OF_USERS,
            self.embedding_dim,
            self.state_dim,
            self.sums,
            self.fading,
            self.hidden_units,
            self.dropout,
        )

    @model_validator(mode="after")
    def _fits(self) -> "HistoryKnowledgeConfig":
        if not self.imitation and not self.clicks:
            raise ValueError("imitation, clicks: both are 0; one of the losses must train it")
        if self.sums % 2:
            raise ValueError(f"sums: found {self.sums}; half of them forget, so it must be even")
        schema = self.data.feature_schema
        known = [f.name for f in schema.inputs if not isinstance(f, History)]
        for name in self.reads:
            if name not in known:
                raise ValueError(
                    f"features: found {name!r}; allowed: {', '.join(known)}; the history is read "
                    "anyway"
                )
        if not any(schema[name].side == "item" for name in self.reads):
            raise ValueError("features: none is of the candidate (side: item)")
        check_names(self.name, data=self.data, tables=self.teacher.tables, teacher=self.teacher)
        return self


@register
class RokNeighbours(Method):
    """A student with the knowledge base of the second form, whose prediction makes fields."""

    name: Literal["rok_neighbours"]
    knowledge: Annotated[HistoryKnowledgeConfig, from_file(lambda: HistoryKnowledgeConfig)]
    fields: int = Field(2, ge=1)  # that carry the prediction to the backbone
    given: bool = False  # reads the teacher's hints themselves: a bound, which cannot be served

    @property
    def parts(self) -> Mapping[str, Any]:
        teacher = self.knowledge.teacher
        return {"knowledge": self.knowledge, "teacher": teacher, "tables": teacher.tables}

    @property
    def is_served(self) -> bool:
        return not self.given  # a server makes no searches

    def import_models(self) -> None:
        import tfctr.frameworks.rok.field_student  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.rok.stages import Imitate, NeighbourHints
        from tfctr.frameworks.statistics.stages import Tables

        teacher = self.knowledge.teacher
        tables = Tables(teacher.tables, run.dataset, run.work)
        hints = NeighbourHints(teacher, run.dataset, run.work, tables)
        found: dict[str, Any] = {"tables": tables, "hints": hints}
        if not self.given:
            found["knowledge"] = Imitate(self.knowledge, hints, run.work)
        return found

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [stages["hints"]] if self.given else []

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.rok.field_student import FieldStudent
        from tfctr.frameworks.rok.given_hint import GivenHint

        knowledge = self.knowledge.create(schema)
        names = [feature.name for feature in model.schema]
        if self.given:
            knowledge = GivenHint(knowledge.size)
        else:
            names += [feature.name for feature in knowledge.schema]
        return FieldStudent(schema.select(names), model, knowledge, self.fields)

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if self.given:
            model.knowledge.set_scale(**stages["hints"].scale())
        else:
            model.knowledge.set_weights(stages["knowledge"].load().get_weights())
