"""The config of ClickPrompt."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tfctr.config.base import from_file
from tfctr.config.method import Method, register
from tfctr.config.run import RunConfig
from tfctr.config.training import PartTraining
from tfctr.language.config import MASK_RATE, TextConfig
from tfctr.schema import Schema


@register
class ClickPrompt(Method):
    """Pre-trains the backbone to generate prompts for a language model (arXiv:2310.09234)."""

    trains_backbone: ClassVar[bool] = True
    can_continue: ClassVar[bool] = False

    name: Literal["clickprompt"]
    text: Annotated[TextConfig, from_file(lambda: TextConfig)]
    pretrained: bool = True  # else the encoder starts at random
    prompts: Literal["layers", "input", "none"] = "layers"  # where the encoder reads them
    num_prompts: int = Field(3, ge=1)
    mask_rate: float = Field(MASK_RATE, gt=0, lt=1)  # share of a text's tokens to predict
    pretraining: PartTraining | None = PartTraining()  # None: no pre-training
    serves_language_model: bool = False  # the student also reads the text

    @model_validator(mode="after")
    def _has_one_text(self) -> "ClickPrompt":
        if len(self.text.texts) != 1:
            raise ValueError(f"text: a row needs one text, found {', '.join(self.text.texts)}")
        return self

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"text": self.text}

    @property
    def takes_rows(self) -> bool:
        return not self.serves_language_model

    def check(self, run: RunConfig) -> None:
        if not self.serves_language_model:
            return
        if len(run.frameworks) > 1:
            names = ", ".join(m.name for m in run.frameworks if m.name != self.name)
            raise ValueError(
                "frameworks.clickprompt.serves_language_model: the student's logits are a mix of "
                f"two models', which can't be stacked with {names}; serve without the language "
                "model"
            )
        run.training.check_rows_weigh_the_same(
            "it shifts logits by a constant, which a bias of all logits must correct; a student "
            "that serves a language model has no such bias"
        )

    def import_models(self) -> None:
        import tfctr.backbones
        import tfctr.frameworks.clickprompt.masked_lm
        import tfctr.frameworks.clickprompt.student
        import tfctr.language.create  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.clickprompt.stages import PromptedPretraining
        from tfctr.stages.texts import text_stages

        texts = text_stages(self.text, run)
        if self.pretraining is None:
            return texts
        return texts | {"prompted": PromptedPretraining(self, texts, run)}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return [stages["texts"]] if self.serves_language_model else []

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        if not self.serves_language_model:
            return model
        from tfctr.frameworks.clickprompt.stages import create_student
        from tfctr.stages.texts import encoder_of

        pad_id = stages["texts"].manifest()["special_tokens"]["pad"]
        return create_student(self, model, encoder_of(stages), pad_id)

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if "prompted" not in stages:
            return
        from tfctr.models.transfer import start_from

        found = stages["prompted"].load()
        if self.serves_language_model:
            model.start_from(found)
        else:
            start_from(model, found.backbone)
