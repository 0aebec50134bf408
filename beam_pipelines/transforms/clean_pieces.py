"""Cleans the pieces of a log on the workers and writes them to disk."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from beam_pipelines.transforms.join import JoinTable, WithFirstRows, read_summary
from beam_pipelines.transforms.short_histories import LeaveOutShortHistories
from tfctr.config import DataConfig
from tfctr.data.clean import (
    Cleaner,
    Staged,
    set_aside_table,
    tally,
    write_dead_letters,
    write_staged,
)
from tfctr.data.readers import Piece
from tfctr.data.typed_rows import count_from


class Clean(beam.PTransform):
    """A log -> `Staged` pieces: cleaned, joined and written to `folder`, with their bad rows.

    Args:
        config: of the log.
        folder: of the job.
        keeps_dropped: as for `Cleaner`.

    Attributes:
        pieces: of the log's events.

    Raises:
        ConfigError: the config does not fit its source.
    """

    def __init__(self, config: DataConfig, folder: str, keeps_dropped: bool = False) -> None:
        super().__init__()
        self.cleaner = Cleaner(config, joins_large=False, keeps_dropped=keeps_dropped)
        self.folder = folder
        # Errors are found here, not on a worker.
        self.cleaner.check_types()
        self.large = self.cleaner.joined.large
        self.pieces = self.cleaner.source.events.pieces()

    def expand(self, pipeline: Any) -> beam.PCollection:
        cleaner = self.cleaner
        staged = (
            pipeline
            | "Pieces" >> beam.Create(self.pieces)  # which spreads them over the workers
            | "FirstRows" >> WithFirstRows(cleaner.source.events, len(self.pieces))
            | "CleanPiece" >> beam.ParDo(_CleanPiece(cleaner, self.folder))
            | "Spread" >> beam.Reshuffle()
        )
        for name in self.large:
            staged = staged | f"Join {name}" >> JoinTable(cleaner, name, self.folder)
        if cleaner.config.min_history:
            staged = staged | "LeaveOutShort" >> LeaveOutShortHistories(cleaner.config)
        return staged

    def set_aside_tables(self) -> dict[str, Any]:
        """Counts of the joined tables after the run: by name, `rows`, `bad`, `bad_reasons`; writes
        their bad rows next to those of the events."""
        found = {name: read_summary(self.folder, name) for name in self.large}
        for name, table in self.cleaner.joined.tables.items():
            found[name] = set_aside_table(self.folder, name, table.rows, table.bad)
        return {name: found[name] for name in self.cleaner.source.tables}


class _CleanPiece(beam.DoFn):
    def __init__(self, cleaner: Cleaner, folder: str) -> None:
        self.cleaner = cleaner
        self.folder = folder

    def process(self, with_first_row: tuple[Piece, int]) -> Iterator[Any]:
        piece, first = with_first_row
        table, rows, counts = self.cleaner.clean(piece)
        path = f"{self.folder}/staged/{piece.index:05d}.feather"
        write_staged(path, count_from(first, table), self.cleaner.features)
        if rows.bad:
            write_dead_letters(
                f"{self.folder}/dead_letters/part-{piece.index:05d}.jsonl",
                piece.path,
                [(number + first, why, text) for number, why, text in rows.bad],
            )
        yield Staged(piece.index, path, table.num_rows, counts, tally(rows.bad))
