"""The config of vectors by token, in files."""

from tfctr.config.base import FolderName
from tfctr.config.data import InputFiles
from tfctr.schema import Name


class VectorTable(InputFiles):
    """A vector for each token of a feature, in Parquet files or arrays of NumPy: of texts, of
    images, of another team's model."""

    name: FolderName
    feature: Name  # whose tokens have the vectors
    key: str | None = None  # the column with the tokens; None: that of the feature in the log
    keys: str | None = None  # the .npy file with the tokens of a .npy file
    column: str = "vector"  # lists of numbers, all of one length
