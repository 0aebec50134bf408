"""MovieLens 1M and 100K as published: a zip, or the folder in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import ConfigError, TwoDomains
from tfctr.data import files
from tfctr.data.delimited import Delimited, Rows
from tfctr.data.readers import DelimitedReader, Piece, Reader, Source, byte_ranges
from tfctr.data.two_domains import TwoDomainRatings

RATINGS = ("user_id", "movie_id", "rating", "timestamp")
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class Movies:
    """The table of movies: `movie_id`, `title`, `genres` joined by `|`, `release_year`."""

    inner: DelimitedReader

    @property
    def paths(self) -> tuple[str, ...]:
        return self.inner.paths

    def names(self) -> tuple[str, ...]:
        return ("movie_id", "title", "genres", "release_year")

    def pieces(self) -> list[Piece]:
        return byte_ranges(self.paths)

    def count(self, piece: Piece) -> int:
        return self.inner.count(piece)

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        rows = self.inner.read(piece, self.inner.names())
        table = rows.table
        title = table["title"].cast(pa.string())
        year = pc.extract_regex(title, r"\((?P<year>\d{4})\)\s*$")
        columns = {
            "movie_id": table["movie_id"],
            "title": title,
            "genres": table["genres"] if "genres" in table.column_names else _genres_100k(table),
            "release_year": pc.struct_field(year, "year"),
        }
        rows.table = pa.table(columns).select(list(wanted)).combine_chunks()
        return rows


def open_movielens(path: Path, two_domains: TwoDomains | None = None) -> Source:
    """The ratings, and the tables of users and movies; in two domains, if that is given.

    Raises:
        ConfigError: `path` holds the files of neither data set.
    """
    for folder, is_1m in (("ml-1m", True), ("ml-100k", False)):
        names = (
            ("ratings.dat", "users.dat", "movies.dat") if is_1m else ("u.data", "u.user", "u.item")
        )
        for found in (
            [f"{path}!{folder}/{name}" for name in names],
            [str(path / name) for name in names],
            [str(path / folder / name) for name in names],
        ):
            if all(_exists(file) for file in found):
                return _source(found, is_1m, two_domains)
    raise ConfigError(
        f"source.path: {path} holds neither MovieLens 1M (ratings.dat, users.dat, movies.dat) nor "
        "100K (u.data, u.user, u.item)"
    )


def _source(paths: list[str], is_1m: bool, two_domains: TwoDomains | None) -> Source:
    ratings, users, movies = paths
    separators = ("::", "::", "::") if is_1m else ("\t", "|", "|")
    user_columns = (
        ("user_id", "gender", "age", "occupation", "zip_code")
        if is_1m
        else ("user_id", "age", "gender", "occupation", "zip_code")
    )
    movie_columns = (
        ("movie_id", "title", "genres")
        if is_1m
        else ("movie_id", "title", "released", "video_released", "imdb_url", *GENRES_100K)
    )

    def reader(path: str, separator: str, columns: tuple[str, ...]) -> DelimitedReader:
        return DelimitedReader((path,), Delimited(separator, "latin-1", columns))

    tables: dict[str, tuple[Reader, str]] = {
        "users": (reader(users, separators[1], user_columns), "user_id"),
        "items": (Movies(reader(movies, separators[2], movie_columns)), "movie_id"),
    }
    events = reader(ratings, separators[0], RATINGS)
    return Source(TwoDomainRatings(events, two_domains) if two_domains else events, tables)


def _genres_100k(table: pa.Table) -> pa.Array:
    """100K has a column of 0 and 1 for each genre."""
    flags = [pc.equal(table[genre].cast(pa.string()), "1") for genre in GENRES_100K]
    none = pa.scalar(None, pa.string())
    chosen = [pc.if_else(f, g, none) for f, g in zip(flags, GENRES_100K, strict=True)]
    return pc.binary_join_element_wise(*chosen, "|", null_handling="skip")


def _exists(path: str) -> bool:
    _, member = files.split_member(path)
    if not member:
        return Path(path).is_file()
    try:
        with files.open_to_read(path):
            return True
    except (KeyError, OSError, ValueError, files.zipfile.BadZipFile):
        return False
