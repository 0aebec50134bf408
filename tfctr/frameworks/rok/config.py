"""Configs of ROK and of its teacher."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tfctr.config.base import FolderName, from_file
from tfctr.config.data import DataConfig
from tfctr.config.method import Method, register
from tfctr.config.run import RunConfig, check_names, check_not_refitted
from tfctr.config.training import PartTraining
from tfctr.retrieval.config import RetrievalConfig
from tfctr.schema import Schema, Strict


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
        from tfctr.frameworks.rok.stages import create_knowledge
        from tfctr.frameworks.rok.student import RokStudent

        return RokStudent(model, create_knowledge(self.knowledge, schema), self.use, self.tuned)

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if self.knowledge.is_pretrained:
            model.knowledge.set_weights(stages["knowledge"].load().get_weights())
