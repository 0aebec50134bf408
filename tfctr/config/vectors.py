"""The config of vectors by token, in files."""

from typing import Any

from tfctr.config.base import FolderName
from tfctr.config.data import InputFiles
from tfctr.schema import Name


class VectorTable(InputFiles):
    """A vector for each token of a feature, in Parquet files or arrays of NumPy: of texts, of
    images, of another team's model."""

    name: FolderName
    key: str | None = None  # the column with the tokens; None: that of the feature in the log
    keys: str | None = None  # the .npy file with the tokens of a .npy file
    column: str = "vector"  # lists of numbers, all of one length
    in_request: Name | None = None  # the input with the vector of a token that has none

    def check_input(self, run: Any, where: str) -> None:
        """Raises a `ValueError` if the input has the name of a feature."""
        if self.in_request in [feature.name for feature in run.data.feature_schema]:
            raise ValueError(
                f"{where}.in_request: found {self.in_request!r}, which is a feature of the data; "
                "give the input of requests another name"
            )
