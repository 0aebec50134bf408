"""Configs of the search for similar rows."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfctr.config.base import FolderName, digest, from_file
from tfctr.config.data import DataConfig
from tfctr.config.run import RunConfig, check_names, check_not_refitted
from tfctr.schema import Categorical, MultiValued, Strict


class RetrievalConfig(Strict):
    """Similar earlier rows for every row of a dataset: `tfctr retrieve FILE`."""

    name: FolderName
    data: Annotated[DataConfig, from_file(lambda: DataConfig)]
    method: Literal["bm25", "dense", "random"] = "bm25"  # random: a baseline
    fields: tuple[str, ...] = ()  # compared by bm25
    encoder: Annotated[RunConfig | None, from_file(lambda: RunConfig)] = (
        None  # a run; its vectors are compared by dense
    )
    k: int = Field(10, ge=1)  # number of rows to retrieve
    pool: float = Field(1.0, gt=0, le=1)  # share of the rows, from the first; 1: all earlier ones

    @model_validator(mode="after")
    def _fields_can_be_compared(self) -> "RetrievalConfig":
        check_names(self.name, data=self.data)
        if self.data.time is None:
            raise ValueError("data: earlier rows are searched, which needs the key 'time'")
        if bool(self.fields) != (self.method == "bm25"):
            needs = "needs the fields to compare" if self.method == "bm25" else "compares none"
            raise ValueError(f"fields: found {list(self.fields)}; {self.method} {needs}")
        if bool(self.encoder) != (self.method == "dense"):
            needs = "needs a run config" if self.method == "dense" else "reads none"
            raise ValueError(f"encoder: {self.method} {needs}")
        if self.encoder and self.encoder.frameworks:
            raise ValueError(f"encoder: {self.encoder.name} is not a run of a plain backbone")
        if self.encoder and digest(self.encoder.data) != digest(self.data):
            raise ValueError(f"encoder: {self.encoder.name} is a run of other data")
        check_not_refitted(encoder=self.encoder)
        known = {
            feature.name: feature
            for feature in self.data.feature_schema
            if isinstance(feature, Categorical | MultiValued)
        }
        for name in self.fields:
            if name not in known:
                raise ValueError(
                    f"fields: {name!r} is not a categorical or multi-valued feature; those are: "
                    f"{', '.join(known) or 'none'}"
                )
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields: must differ, found {', '.join(self.fields)}")
        return self
