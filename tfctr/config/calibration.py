"""The config of a calibration."""

from typing import Literal

from pydantic import Field

from tfctr.schema import Name, Strict


class Calibration(Strict):
    """Maps a trained model's logits to calibrated ones, fitted on the validation rows."""

    method: Literal["isotonic", "platt"] = "isotonic"
    by: Name | None = None  # a categorical feature whose frequent tokens have maps of their own
    least_rows: int = Field(1000, ge=1)  # validation rows from which on a token has one
