"""The stages before SRP4CTR's student: windows of users' events, and an encoder of them."""

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import ConfigError, Training, digest
from tfctr.config.training import Cosine
from tfctr.data.manifest import DataError, write_manifest
from tfctr.frameworks.srp4ctr.config import SequenceEncoderConfig, SequencesConfig
from tfctr.schema import Schema
from tfctr.stages import Run, SideOutputs, TrainingStage, Version


class Windows(SideOutputs):
    """The windows of users' events, by `beam_pipelines.sequences`."""

    name = "sequences"
    config: SequencesConfig

    def write(self, beam_args: list[str] | None) -> dict[str, Any]:
        from beam_pipelines.sequences import write_sequences

        return write_sequences(self.config, str(self.dataset.path), str(self.folder), beam_args)

    def describe(self, split: str, counts: dict[str, Any]) -> str:
        return f"{split}: {counts['events']:,} events in {counts['rows']:,} windows"


class PretrainEncoder(TrainingStage):
    """`encoder.keras`, the encoder with its heads, and `next_item.json`, its metrics of next-item
    prediction; in `<work>/<encoder's name>`.

    Args:
        config: of the encoder.
        windows: the stage of its windows.
        goes_on: whether it goes on from the encoder that is there if the dataset has grown since:
            for one epoch of all windows. Defaults to False: it is trained from the start.
    """

    name = "train"

    def __init__(
        self, config: SequenceEncoderConfig, windows: Windows, goes_on: bool = False
    ) -> None:
        self.config = config
        self.goes_on = goes_on and windows.dataset.grows
        self.training = of_one_epoch(config.training) if self.goes_on else config.training
        self.windows = windows
        self.folder = windows.folder.parent / config.name
        self.path = self.folder / "encoder.keras"
        self.reads = (windows,)

    @property
    def made_from(self) -> Any:
        return digest(self.config)

    def make(self, console: Console) -> None:
        import keras

        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.srp4ctr.fg_bert import FgBert, MaskedPartsObjective

        config = self.config
        windows = Dataset.open(self.windows.path)
        schema = Dataset.open(self.windows.dataset.path).schema
        how = "pretrain on" if self.goes_on else "pretrain"
        console.print(f"[bold]{how}[/] an encoder of events -> {self.path}", soft_wrap=True)
        earlier = self._keep_earlier() if self.goes_on else None

        def create() -> Any:
            model = FgBert(
                windows.schema.select(config.select(windows.schema)),
                create_encoder(config, schema),
                config.mask_rate,
                config.last_rate,
                config.sampled_tokens,
            )
            if earlier is not None:
                model.build()
                model.start_from(keras.models.load_model(earlier, compile=False))
            return model

        def save(model: Any, path: str) -> None:
            model.save(path, include_optimizer=False)
            self._measure(model, windows, console)

        self.train(
            create,
            windows,
            {"encoder": config.model_dump(mode="json", exclude={"sequences", "training"})},
            console,
            save,
            objective=lambda model: MaskedPartsObjective(windows, model.reads),
        )
        if earlier is not None:
            earlier.unlink()

    def _keep_earlier(self) -> Path:
        """The encoder to go on from, in a file of its own: a training that is killed goes on from
        the same one again, wherever it was.

        Raises:
            DataError: there is none.
        """
        kept = self.folder / f"before-{self.key()}.keras"
        if not kept.exists():
            if not self.path.exists():
                raise DataError(
                    f"{self.path}: missing; the encoder goes on from that of earlier days: put the "
                    "file back, or delete the rollout's folder to start anew"
                )
            temporary = kept.with_suffix(".part.keras")
            shutil.copy(self.path, temporary)
            temporary.rename(kept)
        return kept

    def import_models(self) -> None:
        import tfctr.frameworks.srp4ctr.fg_bert  # noqa: F401

    def _measure(self, model: Any, windows: Any, console: Console) -> None:
        """Writes the metrics of next-item prediction for each item-side history."""
        from tfctr.frameworks.srp4ctr.next_item import next_item

        found = {part: next_item(model, windows, part) for part in model.encoder.behaviours.of_item}
        for part, measured in found.items():
            console.print(
                f"the next event's {part}: among the first 10 of {measured['hit_rate_10']:.3f} of "
                f"{measured['windows']:,.0f} windows, NDCG {measured['ndcg_10']:.3f}; among the "
                f"first 50 of {measured['hit_rate_50']:.3f}, NDCG {measured['ndcg_50']:.3f}"
            )
        write_manifest(found, str(self.folder / "next_item.json"))


class Index(Version):
    """A SavedModel that retrieves the next items after a history:
    `<export's folder>-candidates/<version>`.

    Raises:
        ConfigError: the encoder reads no history of items; k is too many; scann is not installed.
    """

    name = "index"

    def __init__(self, run: Run, encoder: PretrainEncoder, k: int, search: str) -> None:
        folder = run.export_folder
        super().__init__(folder.with_name(f"{folder.name}-candidates"))
        self.run = run
        self.encoder = encoder
        self.k = k
        self.search = search
        self.folder = encoder.folder
        self.reads = (encoder,)

    @property
    def made_from(self) -> Any:
        return [str(self.served), self.k, self.search]

    def write(self, console: Console) -> Path:
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.srp4ctr.candidate_index import export_candidates

        config, model = self.run.config, self.encoder.load()
        item, about = config.data.item, model.encoder.behaviours.of_item
        part = next((name for name, shared in about.items() if shared == item), None)
        if part is None:
            raise ConfigError(
                f"data.item: found {item!r}; {self.encoder.config.name} reads no history that "
                f"shares it, but of {', '.join(sorted(set(about.values())))}"
            )
        data = Dataset.open(self.run.data_folder)
        try:
            return export_candidates(model, data, part, self.served, self.k, self.search)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{config.name}: {error}") from None


def of_one_epoch(training: Training) -> Training:
    """A training that goes on from an earlier one: its schedule, in one epoch."""
    schedule = training.optimizer.schedule
    if isinstance(schedule, Cosine):
        shorter = {"warmup_epochs": schedule.warmup_epochs / training.epochs}
        schedule = schedule.model_copy(update=shorter)
    optimizer = training.optimizer.model_copy(update={"schedule": schedule})
    return training.model_copy(update={"epochs": 1, "optimizer": optimizer})


def create_encoder(config: SequenceEncoderConfig, schema: Schema) -> Any:
    """The untrained encoder of the config's histories. `schema` is the dataset's."""
    from tfctr.frameworks.srp4ctr.sequence_encoder import SequenceEncoder

    return SequenceEncoder(
        schema.select(config.select(schema)),
        config.dim,
        config.num_layers,
        config.num_heads,
        config.dropout,
        name="encoder",
    )
