"""The config of CTRL."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tfctr.config.base import from_file
from tfctr.config.method import Method, register
from tfctr.config.run import RunConfig
from tfctr.config.training import PartTraining
from tfctr.language.config import TextConfig


@register
class Ctrl(Method):
    """Pre-trains the backbone by aligning rows with their texts (CTRL, arXiv:2306.02841).

    With `clicks` and without `pretraining`, one stage learns the alignment and the clicks.
    """

    trains_backbone: ClassVar[bool] = True
    can_continue: ClassVar[bool] = False

    name: Literal["ctrl"]
    text: Annotated[TextConfig, from_file(lambda: TextConfig)]
    pretrained: bool = True  # else the encoder starts at random
    trained_layers: int | None = Field(None, ge=0)  # number of the encoder's last layers; None: all
    num_subspaces: int = Field(4, ge=1)  # 1: the cosine
    projection_dim: int = Field(128, ge=1)
    subspace_dim: int = Field(32, ge=1)
    temperature: float = Field(0.1, gt=0)
    rows_at_a_time: int = Field(256, ge=1)  # rows whose scores or texts are in memory
    clicks: float | None = Field(None, gt=0)  # weight of the clicks, learned in the same stage
    pretraining: PartTraining | None = PartTraining()  # None: in the same stage

    @model_validator(mode="after")
    def _in_one_stage_or_two(self) -> "Ctrl":
        if (self.clicks is None) == (self.pretraining is None):
            raise ValueError(
                "give pretraining without clicks (two stages), or clicks with pretraining: null "
                f"(one stage); found clicks: {self.clicks} and pretraining: "
                f"{'null' if self.pretraining is None else 'given'}"
            )
        return self

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"text": self.text}

    def check(self, run: RunConfig) -> None:
        if self.pretraining is not None:
            return
        if len(run.frameworks) > 1:
            names = ", ".join(m.name for m in run.frameworks if m.name != self.name)
            raise ValueError(
                "frameworks.ctrl.pretraining: null aligns a backbone while it learns clicks, and "
                f"can't be stacked with {names}; give pretraining, a separate stage"
            )
        run.training.check_rows_weigh_the_same(
            "training the alignment and the clicks in one stage (frameworks.ctrl.clicks) allows "
            "only 1"
        )

    def import_models(self) -> None:
        import tfctr.backbones
        import tfctr.frameworks.ctrl.joint_alignment
        import tfctr.language.create  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.ctrl.stages import Align
        from tfctr.stages.texts import text_stages

        texts = text_stages(self.text, run)
        return texts if self.pretraining is None else texts | {"aligned": Align(self, texts, run)}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [stages["texts"]] if self.pretraining is None else []

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if "aligned" in stages:
            from tfctr.models.transfer import start_from

            start_from(model, stages["aligned"].load())

    def trainee(self, model: Any, data: Any, stages: Mapping[str, Any]) -> Any:
        if self.pretraining is not None:
            return model
        from tfctr.frameworks.ctrl.stages import create_alignment

        return create_alignment(self, model, data, stages)
