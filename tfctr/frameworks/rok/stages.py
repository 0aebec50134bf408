"""The stages before ROK's student: similar rows, a teacher, its hints, a knowledge base."""

import logging
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import digest
from tfctr.data.manifest import read_manifest
from tfctr.frameworks.rok.config import (
    HistoryKnowledgeConfig,
    KnowledgeConfig,
    NeighboursConfig,
)
from tfctr.frameworks.statistics.stages import Tables
from tfctr.retrieval.config import RetrievalConfig
from tfctr.stages import Prepare, Run, SideOutputs, Stage, TrainingStage
from tfctr.stages.prepare import MANIFEST


class Retrieve(SideOutputs):
    """The similar rows of each row, by `beam_pipelines.retrieve`."""

    name = "retrieve"

    def __init__(
        self, config: RetrievalConfig, dataset: Prepare, work: Path, console: Console
    ) -> None:
        self.encoder: Stage | None = None
        if config.encoder:
            self.encoder = Run(config.encoder, work, console, dataset.beam_args).trained
        super().__init__(config, dataset, work, [self.encoder] if self.encoder else [])

    def write(self, beam_args: list[str] | None) -> dict[str, Any]:
        from beam_pipelines.retrieve import retrieve

        encoder = str(self.encoder.path) if self.encoder else ""
        return retrieve(self.config, str(self.dataset.path), str(self.folder), beam_args, encoder)

    def describe(self, split: str, counts: dict[str, Any]) -> str:
        return (
            f"{counts['rows_with_fewer_than_k']:,} of {counts['rows']:,} rows of {split} found "
            f"fewer than {self.config.k}, {counts['rows_without_any']:,} none"
        )


class Hints(Stage):
    """A teacher's hints for all rows: `hints`, in the teacher's folder."""

    name = "hints"
    manifest_name = MANIFEST

    def __init__(self, teacher: Run) -> None:
        self.teacher = teacher
        self.similar = teacher.before["rim"]["similar"]
        self.data_folder = teacher.data_folder
        self.folder = self.path = teacher.folder / "hints"
        self.reads = (teacher.trained, self.similar)

    @property
    def made_from(self) -> Any:
        return None

    def make(self, console: Console) -> None:
        from beam_pipelines.hints import write_hints

        teacher = self.teacher
        console.print(f"[bold]hints[/] {teacher.config.name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        write_hints(
            str(teacher.trained.path),
            str(teacher.data_folder),
            str(self.similar.path),
            str(self.path),
            self.key(),
        )


class NeighbourHints(SideOutputs):
    """What neighbours say of each row, by `beam_pipelines.neighbour_hints`."""

    name = "neighbours"

    def __init__(
        self, config: NeighboursConfig, dataset: Prepare, work: Path, tables: Tables
    ) -> None:
        super().__init__(config, dataset, work, [tables])
        self.tables = tables
        self.data_folder = dataset.path

    def write(self, beam_args: list[str] | None) -> dict[str, Any]:
        from beam_pipelines.neighbour_hints import write_neighbour_hints

        data, tables, folder = (str(f) for f in (self.data_folder, self.tables.path, self.folder))
        return write_neighbour_hints(self.config, data, tables, folder, beam_args)

    def scale(self) -> dict[str, Any]:
        """`mean` and `std` of each number over the training rows."""
        found = (read_manifest(self.manifest_path) or {})["splits"]["train"]
        return {name: found[name] for name in ("mean", "std")}


class Imitate(TrainingStage):
    """A knowledge base trained to predict a teacher's hints: `knowledge.keras`, in
    `<work>/<its name>`."""

    name = "train"

    def __init__(
        self,
        config: KnowledgeConfig | HistoryKnowledgeConfig,
        hints: Hints | NeighbourHints,
        work: Path,
    ) -> None:
        self.config = config
        self.training = config.training
        self.hints = hints
        self.folder = work / config.name
        self.path = self.folder / "knowledge.keras"
        self.reads = (hints,)

    @property
    def made_from(self) -> Any:
        return digest(self.config, without=["name", "teacher"])

    def make(self, console: Console) -> None:
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.rok.imitation import Imitation, ImitationObjective

        config, hints = self.config, self.hints.path
        data = Dataset.open(self.hints.data_folder, [hints])
        described = (read_manifest(hints / "manifest.json") or {})["splits"][config.training.rows]

        def create() -> Any:
            knowledge = config.create(data.schema)
            return Imitation(knowledge, described["mean"], described["std"], **config.losses)

        clicks_only = config.clicks > 0 and not config.imitation
        console.print(f"[bold]imitate[/] {config.teacher.name} -> {self.path}", soft_wrap=True)
        self.train(
            create,
            data,
            {"knowledge": config.model_dump(mode="json", exclude={"teacher", "training"})},
            console,
            save=lambda model, path: model.knowledge.save(path),
            objective=None if clicks_only else lambda model: ImitationObjective(data, model.reads),
        )

    def import_models(self) -> None:
        import tfctr.frameworks.rok.imitation  # noqa: F401
