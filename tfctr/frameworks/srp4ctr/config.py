"""Configs of SRP4CTR."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tfctr.config.base import FolderName, from_file
from tfctr.config.data import DataConfig
from tfctr.config.method import Method, register
from tfctr.config.run import check_names
from tfctr.config.training import PartTraining
from tfctr.schema import History, Schema, Strict


class SequencesConfig(Strict):
    """Windows of users' events in the training period: `tfctr sequences FILE`."""

    name: FolderName
    data: Annotated[DataConfig, from_file(lambda: DataConfig)]
    stride: int | None = Field(None, ge=1)  # events between the ends of windows; None: the length
    held_out: float = Field(0.05, gt=0, lt=1)  # share of the users, for validation

    @model_validator(mode="after")
    def _has_histories(self) -> "SequencesConfig":
        check_names(self.name, data=self.data)
        if not any(isinstance(feature, History) for feature in self.data.features):
            raise ValueError(f"data: {self.data.name!r} has no feature of kind history")
        return self


class SequenceEncoderConfig(Strict):
    """An encoder of users' events, pre-trained to predict masked parts of them (FG-BERT)."""

    name: FolderName
    sequences: Annotated[SequencesConfig, from_file(lambda: SequencesConfig)]
    histories: tuple[str, ...] | None = None  # the parts of an event that it reads; None: all
    dim: int = Field(32, ge=1)
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    mask_rate: float = Field(0.2, gt=0, lt=1)  # share of the events, for each group of parts
    last_rate: float = Field(0.1, ge=0, le=1)  # share of the windows whose last event is masked
    sampled_tokens: int | None = Field(None, ge=1)  # sampled negatives; None: the whole vocabulary
    training: PartTraining = PartTraining()

    @property
    def data(self) -> DataConfig:
        return self.sequences.data

    @model_validator(mode="after")
    def _histories_exist(self) -> "SequenceEncoderConfig":
        check_names(self.name, data=self.data, sequences=self.sequences)
        known = [f.name for f in self.data.features if isinstance(f, History)]
        for name in self.histories or ():
            if name not in known:
                raise ValueError(
                    f"histories: {name!r} is not a feature of kind history; those are: "
                    f"{', '.join(known)}"
                )
        if self.dim % self.num_heads:
            raise ValueError(f"dim: {self.dim} is not a multiple of num_heads, {self.num_heads}")
        return self

    def select(self, schema: Schema) -> list[str]:
        """The histories that the encoder reads, and the item features that these share."""
        known = [feature for feature in schema if isinstance(feature, History)]
        read = [f for f in known if self.histories is None or f.name in self.histories]
        items = {feature.name for feature in schema.side("item")}
        return [f.name for f in read] + sorted({str(f.shares) for f in read if f.shares in items})


@register
class Srp4ctr(Method):
    """A student with an encoder of the user's events (SRP4CTR, arXiv:2407.19658)."""

    by_days: ClassVar[bool] = True

    name: Literal["srp4ctr"]
    encoder: Annotated[SequenceEncoderConfig, from_file(lambda: SequenceEncoderConfig)]
    pretrained: bool = True  # else the encoder starts at random
    cross_attention: bool = True  # the candidate attends to the events in each layer
    num_queries: int = Field(4, ge=0)  # of the querying transformer; 0: no such transformer
    num_query_blocks: int = Field(1, ge=1)
    frozen: Literal["none", "embeddings", "all"] = "none"  # of the encoder
    # In a rollout: whether the encoder is pre-trained on, of the days since, whenever methods are
    # made again; what is frozen in the models is then exchanged.
    refreshed: bool = False

    @model_validator(mode="after")
    def _refreshes_what_is_frozen(self) -> "Srp4ctr":
        if self.refreshed and (self.frozen == "none" or not self.pretrained):
            found = "frozen: none" if self.pretrained else "pretrained: false"
            raise ValueError(
                f"refreshed: found true and {found}; it exchanges what is frozen of a pre-trained "
                "encoder: set frozen: all, pretrained: true, or leave refreshed out, as an encoder "
                "that is not frozen learns with the models every day"
            )
        return self

    @property
    def made_again(self) -> str:
        return "encoder" if self.refreshed else ""

    def check(self, run: Any) -> None:
        if self.refreshed and run.starts_from is not None:
            raise ValueError(
                "frameworks.srp4ctr.refreshed: only a rollout refreshes its encoder; a run that "
                "starts from another one has the encoder of that one: leave it out"
            )

    @property
    def parts(self) -> Mapping[str, Any]:
        return {"encoder": self.encoder, "sequences": self.encoder.sequences}

    def import_models(self) -> None:
        import tfctr.frameworks.srp4ctr.student  # noqa: F401

    def stages(self, run: Any) -> Mapping[str, Any]:
        from tfctr.frameworks.srp4ctr.stages import PretrainEncoder, Windows

        if not self.pretrained:
            return {}
        windows = Windows(self.encoder.sequences, run.dataset, run.work)
        return {
            "sequences": windows,
            "encoder": PretrainEncoder(self.encoder, windows, self.refreshed),
        }

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tfctr.frameworks.srp4ctr.stages import create_encoder
        from tfctr.frameworks.srp4ctr.student import Srp4ctrStudent

        names = [feature.name for feature in model.schema]
        return Srp4ctrStudent(
            schema.select([*names, *self.encoder.select(schema)]),
            model,
            create_encoder(self.encoder, schema),
            self.cross_attention,
            self.num_queries,
            self.num_query_blocks,
            self.frozen,
            self.refreshed,
        )

    def data_stages(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        return (stages["encoder"],) if self.refreshed else ()

    def set_data(self, model: Any, stages: Mapping[str, Any]) -> None:
        if self.refreshed:
            model.exchange(stages["encoder"].load().encoder)

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        if self.pretrained:
            model.start_from(stages["encoder"].load().encoder)

    def index(self, run: Any, stages: Mapping[str, Any], k: int, search: str) -> Any:
        from tfctr.frameworks.srp4ctr.stages import Index

        return Index(run, stages["encoder"], k, search) if self.pretrained else None
