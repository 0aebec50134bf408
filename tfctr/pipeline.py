"""The stages of a run in order: prepare, train, evaluate, export.

Each leaves an artefact and, last of all, a manifest with the digest of all it was made from. A
stage whose manifest has the right digest is skipped; so a second run does nothing, and a killed
one goes on where it was.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from tfctr import metrics
from tfctr.config import (
    ConfigError,
    DataConfig,
    RetrievalConfig,
    RunConfig,
    SequencesConfig,
    TextConfig,
    data_digest,
    digest,
)
from tfctr.data import files
from tfctr.data.manifest import FORMAT, DataError, read_manifest, write_manifest
from tfctr.pretraining import EncoderRun, KnowledgeRun, SequencePretraining, TextPretraining
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID
from tfctr.stages import alone, is_done, train_stage, versions

DEFAULT_WORK = Path("work")
RARE = 0.1  # of the training rows


class Run:
    """One run config and the folders of its artefacts.

    - `data_folder`, `<work>/<data's name>`: the dataset directory, shared by runs;
    - `folder`, `<work>/<run's name>`: `model.keras` and the `vocabularies` that it knows,
      `metrics.json`, `<split>.parquet` with what the model says of each row, and the stages'
      manifests;
    - `export_folder`: the versions of the SavedModel.
    """

    def __init__(
        self, config: RunConfig, work: Path = DEFAULT_WORK, console: Console | None = None
    ) -> None:
        self.config = config
        self.work = work
        self.folder = work / config.name
        self.data_folder = work / config.data.name
        self.export_folder = Path(config.export.directory) / config.name
        self.console = console or Console()

    def prepare(self, beam_args: list[str] | None = None) -> dict[str, Any]:
        """The dataset's manifest; the similar rows that the model or its teacher reads, the texts
        that a language model does, or the users' events that an encoder does, are there too."""
        manifest = prepare(self.config.data, self.data_folder, beam_args, self.console)
        if self.config.similar:
            retrieve(self.config.similar, self.work, beam_args, self.console)
        if self.config.starts_from is not None:
            if earlier := self.earlier_run:
                earlier.prepare(beam_args)
            return manifest  # what a method trains before has been trained for the earlier model
        if self.knowledge:
            self.knowledge.teacher.prepare(beam_args)
        if self.config.text:
            textify(self.config.text, self.work, beam_args, self.console)
        if self.config.sequence_encoder:
            sequences = self.config.sequence_encoder.sequences
            write_sequences(sequences, self.work, beam_args, self.console)
        return manifest

    @property
    def earlier_run(self) -> "Run | None":
        """The run that this one's training goes on from, if it is one and not a file."""
        earlier = self.config.starts_from
        return Run(earlier, self.work, self.console) if isinstance(earlier, RunConfig) else None

    def earlier_model(self) -> Any:
        """The model that the training goes on from; none if it starts at random.

        Raises:
            ConfigError: it is this run's own.
            DataError: it is not there, or not whole.
        """
        from tfctr.frameworks.earlier_model import EarlierModel

        if self.config.starts_from is None:
            return None
        path = self.config.starts_from
        if earlier := self.earlier_run:
            path = earlier.train()
        assert isinstance(path, Path)
        if path.resolve() == (self.folder / "model.keras").resolve():
            raise ConfigError(
                f"{self.config.name}: starts_from: {path} is what this run writes; give it another "
                "name"
            )
        return EarlierModel(path)

    @property
    def knowledge(self) -> KnowledgeRun | None:
        """What makes the knowledge base that the model carries."""
        config = self.config.knowledge
        if config is None:
            return None
        teacher = Run(config.teacher, self.work, self.console)
        return KnowledgeRun(config, teacher, self.work, self.console)

    @property
    def pretraining(self) -> TextPretraining | SequencePretraining | None:
        """What is trained before: the backbone beside a language model, or an encoder."""
        if self.config.text is None and self.config.sequence_encoder is None:
            return None
        kind = TextPretraining if self.config.text else SequencePretraining
        return kind(self.config, self.work, self.data_key(), self.console)

    def open_data(self) -> Any:
        """The dataset, and beside it the similar rows or the texts that the model reads."""
        from tfctr.data.dataset import Dataset

        if self.config.similar is not None:
            folder = self.work / self.config.similar.name
            found = read_manifest(folder / "manifest.json")
            if found is None or found["config_digest"] != digest(self.config.similar):
                raise DataError(f"{folder}: no similar rows as configured; run `tfctr prepare`")
            return Dataset.open(self.data_folder, [folder])
        pretraining = self.pretraining
        if isinstance(pretraining, TextPretraining) and pretraining.student_reads_texts:
            return pretraining.open_data()
        return Dataset.open(self.data_folder)

    def train(self) -> Path:
        """The trained model's path: `model.keras`, with the best weights."""
        path, key = self.folder / "model.keras", self.train_key()
        if self._is_done("train", self.folder / "train.json", key, path):
            return path
        import keras

        from tfctr.frameworks.create import create_model
        from tfctr.frameworks.earlier_model import VOCABULARIES

        earlier = self.earlier_model()
        data = self.open_data()
        knowledge, pretraining = self.knowledge, self.pretraining
        known = before = None
        if earlier is None:
            if knowledge and knowledge.config.is_pretrained:
                known = keras.models.load_model(knowledge.train())
            before = pretraining.train() if pretraining else None
        in_one_stage = isinstance(pretraining, TextPretraining) and pretraining.is_in_one_stage

        def make() -> Any:
            if isinstance(pretraining, TextPretraining) and in_one_stage:
                return pretraining.aligned_meanwhile(data)
            if pretraining:
                model = pretraining.student(before, data)
            else:
                model = create_model(self.config, data.schema)
                model.build()
            if known:
                model.knowledge.set_weights(known.get_weights())
            if earlier:
                earlier.hand_over(model, data, self.console)
            return model

        self.console.print(f"[bold]train[/] {self.config.model.backbone} -> {path}")
        about = {"model": self.config.model.model_dump(mode="json")}

        def save(model: Any, path: str) -> None:
            data.copy_vocabularies(self.folder / VOCABULARIES)
            kept = model.backbone if in_one_stage else model
            kept.save(path, include_optimizer=False)

        return train_stage(
            make, data, self.config.training, path, key, about, self.console, save=save
        )

    def evaluate(self) -> Path:
        """The path of `metrics.json`: `{"valid": {...}, "test": {...}}`, what has rows of them.

        Beside it lies `<split>.parquet`, what the model says of each row: `label`, `logit`,
        `user_key` if the data has a user, and a bool column a segment. A split on which the model
        is worse than saying the base rate is warned of, also when all is done.
        """
        path, manifest_path = self.folder / "metrics.json", self.folder / "evaluate.json"
        key = digest([self.train_key(), "evaluate", "predictions"])
        if self._is_done("evaluate", manifest_path, key, path):
            self._warn(read_manifest(path) or {})
            return path
        self.console.print(f"[bold]evaluate[/] -> {path}")
        data, model = self.open_data(), self.load_model()
        manifest_path.unlink(missing_ok=True)
        splits = [split for split in ("valid", "test") if data.num_rows(split)]
        found = {}
        for split in splits:
            columns, segments = predict_split(model, data, split, self.console)
            files.write_parquet(str(self.folder / f"{split}.parquet"), columns | segments)
            found[split] = metrics.evaluate(
                columns["label"], columns["logit"], columns.get("user_key"), segments
            )
        write_manifest(found, str(path))
        write_manifest(
            {"key": key, "rows": {split: data.num_rows(split) for split in splits}},
            str(manifest_path),
        )
        self._warn(found)
        return path

    def _warn(self, found: Mapping[str, Any]) -> None:
        for split, measured in found.items():
            entropy = measured["normalized_entropy"]
            if entropy is not None and entropy > 1:
                self.console.print(
                    f"[yellow]warning:[/] {split}: normalised entropy {entropy:.4f} is above 1, "
                    "worse than saying the base rate of every row; try training.chosen_by: "
                    "log_loss, fewer training.epochs, or more training.optimizer.embedding_l2",
                    soft_wrap=True,
                )

    def export(self) -> Path:
        """The path of the SavedModel's version.

        Raises:
            ConfigError: the model reads similar rows, which a server does not have.
        """
        if self.config.similar is not None:
            raise ConfigError(
                f"{self.config.name}: reads similar rows, which a server does not have; it can be "
                "the teacher of a run with framework: {name: rok, ...}, and that can be exported"
            )
        manifest_path = self.folder / "export.json"
        key = digest([self.train_key(), str(self.export_folder)])
        found = read_manifest(manifest_path) or {}
        if self._is_done("export", manifest_path, key, Path(found.get("version", manifest_path))):
            return Path(found["version"])
        from tfctr import serving
        from tfctr.data.dataset import Dataset
        from tfctr.serving.model_directory import tidy

        self.console.print(f"[bold]export[/] -> {self.export_folder}")
        version = serving.export(
            self.load_model(), Dataset.open(self.data_folder), self.export_folder
        )
        tidy(self.export_folder, self.config.export.keep)
        write_manifest(
            {"key": key, "version": str(version), "versions": versions()}, str(manifest_path)
        )
        return version

    def index(self, k: int = 100, search: Literal["exact", "scann"] = "exact") -> Path:
        """The path of the version of an index of items, by what comes next after a history.

        Raises:
            ConfigError: there is no sequence encoder, or none that reads which item it was; k is
                too many; scann is not installed.
        """
        encoder, item = self.config.sequence_encoder, self.config.data.item
        pretraining = self.pretraining
        if not isinstance(pretraining, SequencePretraining) or not pretraining.comes_before:
            raise ConfigError(
                f"{self.config.name}: no sequence encoder is pre-trained for it, so nothing tells "
                "which item comes next; framework: {name: srp4ctr, ...} has one"
            )
        folder = self.export_folder.with_name(f"{self.export_folder.name}-candidates")
        manifest_path = pretraining.folder / "index.json"
        key = digest([pretraining.key(), str(folder), k, search])
        found = read_manifest(manifest_path) or {}
        if self._is_done("index", manifest_path, key, Path(found.get("version", manifest_path))):
            return Path(found["version"])
        path = pretraining.train()
        import keras

        from tfctr.data.dataset import Dataset
        from tfctr.serving.candidate_index import export_candidates

        model = keras.models.load_model(path, compile=False)
        about = model.encoder.behaviours.about
        part = next((name for name, shared in about.items() if shared == item), None)
        if part is None:
            raise ConfigError(
                f"data.item: found {item!r}; {encoder.name if encoder else ''} reads no history "
                f"that shares it, but of {', '.join(sorted(set(about.values())))}"
            )
        self.console.print(f"[bold]index[/] -> {folder}")
        data = Dataset.open(self.data_folder)
        try:
            version = export_candidates(model, data, part, folder, k, search)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{self.config.name}: {error}") from None
        write_manifest(
            {"key": key, "version": str(version), "versions": versions()}, str(manifest_path)
        )
        return version

    def load_model(self) -> Any:
        path = self.folder / "model.keras"
        if not path.is_file():
            raise DataError(f"{path}: no trained model; run `tfctr train` first")
        if (read_manifest(self.folder / "train.json") or {}).get("key") != self.train_key():
            raise DataError(
                f"{path}: trained with another config or other data; run `tfctr train` again"
            )
        import keras

        import tfctr.frameworks.create  # registers the classes

        if self.config.text:
            import tfctr.frameworks.language  # noqa: F401

        return keras.models.load_model(path)

    def data_key(self) -> list[Any]:
        """What the dataset is known by.

        Raises:
            DataError: there is none as configured.
        """
        manifest = read_manifest(self.data_folder / "manifest.json")
        if manifest is None:
            raise DataError(f"{self.data_folder}: no dataset here; run `tfctr prepare` first")
        if manifest["config_digest"] != digest(self.config.data):
            raise DataError(
                f"{self.data_folder}: prepared with another config; run `tfctr prepare` again"
            )
        return [manifest["config_digest"], manifest["inputs"]]

    def train_key(self) -> str:
        """Of all that the model is made from."""
        made_from = [
            *self.data_key(),
            self.config.model.model_dump(mode="json"),
            self.config.training.model_dump(mode="json"),
        ]
        if self.config.similar:
            made_from.append(digest(self.config.similar))
        if self.config.framework and self.knowledge:
            around = self.config.framework.model_dump(mode="json", exclude={"knowledge"})
            made_from += [around, self.knowledge.key()]
        if pretraining := self.pretraining:
            made_from.append(pretraining.student_key())
        if earlier := self.earlier_run:
            made_from.append(earlier.train_key())
        elif self.config.starts_from is not None:
            made_from.append(self.earlier_model().key())
        return digest(made_from)

    def _is_done(self, stage: str, manifest_path: Path, key: str, artefact: Path) -> bool:
        done = is_done(manifest_path, key, artefact)
        if done:
            self.console.print(f"[bold]{stage}[/] is done: {artefact}")
        return done


def prepare(
    config: DataConfig,
    folder: Path,
    beam_args: list[str] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """The manifest of the dataset in `folder`, prepared if it is not there as configured."""
    from tfctr.data.sources import open_source

    console = console or Console()
    with alone(folder.parent, console):
        manifest = read_manifest(folder / "manifest.json")
        if (
            manifest is not None
            and manifest.get("format") == FORMAT
            and manifest.get("config_digest") == digest(config)
            and manifest.get("inputs") == open_source(config).fingerprint()
        ):
            console.print(f"[bold]prepare[/] is done: {folder}")
            return manifest
        return _prepare(config, folder, beam_args, console)


def _prepare(
    config: DataConfig, folder: Path, beam_args: list[str] | None, console: Console
) -> dict[str, Any]:
    from beam_pipelines.prepare import prepare as run_pipeline

    console.print(f"[bold]prepare[/] {config.name} -> {folder}")
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    start = time.perf_counter()
    with _pieces_done(config, folder, console):
        manifest = run_pipeline(config, str(folder), beam_args)
    rows = ", ".join(f"{s} {found['rows']:,}" for s, found in manifest["splits"].items())
    console.print(f"rows: {rows}; {time.perf_counter() - start:.0f} s")
    if bad := manifest["counts"]["bad"]:
        console.print(f"{bad:,} bad rows, set aside in {folder / 'dead_letters'}")
    return manifest


def retrieve(
    config: RetrievalConfig,
    work: Path,
    beam_args: list[str] | None = None,
    console: Console | None = None,
) -> Path:
    """The directory of the similar rows of each row, made if it is not there as configured."""
    from beam_pipelines.retrieve import retrieve as run_pipeline

    console = console or Console()

    def make(data: str, folder: str, _key: str) -> dict[str, Any]:
        encoder = str(Run(config.encoder, work, console).train()) if config.encoder else ""
        manifest = run_pipeline(config, data, folder, beam_args, encoder)
        for split, counts in manifest["splits"].items():
            console.print(
                f"{counts['rows_with_fewer_than_k']:,} of {counts['rows']:,} rows of {split} found "
                f"fewer than {config.k}, {counts['rows_without_any']:,} none"
            )
        return manifest

    return _make_of_data("retrieve", config, work, beam_args, console, make)


def textify(
    config: TextConfig,
    work: Path,
    beam_args: list[str] | None = None,
    console: Console | None = None,
) -> Path:
    """The directory of the texts of each row, made if it is not there as configured."""
    from beam_pipelines.textify import textify as run_pipeline

    console = console or Console()

    def make(data: str, folder: str, key: str) -> dict[str, Any]:
        encoder = EncoderRun(config, work, console).tokenizer(key)
        manifest = run_pipeline(config, data, folder, beam_args, encoder)
        for split, counts in manifest["splits"].items():
            for text, of_text in counts["texts"].items():
                console.print(
                    f"{split}, {text}: {of_text['tokens'] / counts['rows']:.1f} tokens a row, at "
                    f"most {of_text['longest']}; {of_text['shortened']:,} texts without their "
                    f"early events, {of_text['cut']:,} cut; {of_text['unknown_tokens']:,} unknown "
                    "tokens"
                )
        return manifest

    return _make_of_data("textify", config, work, beam_args, console, make)


def write_sequences(
    config: SequencesConfig,
    work: Path,
    beam_args: list[str] | None = None,
    console: Console | None = None,
) -> Path:
    """The directory of the windows of users' events, made if it is not there as configured."""
    from beam_pipelines.sequences import write_sequences as run_pipeline

    console = console or Console()

    def make(data: str, folder: str, _key: str) -> dict[str, Any]:
        manifest = run_pipeline(config, data, folder, beam_args)
        for split, counts in manifest["splits"].items():
            console.print(f"{split}: {counts['events']:,} events in {counts['rows']:,} windows")
        return manifest

    return _make_of_data("sequences", config, work, beam_args, console, make)


def _make_of_data(
    what: str,
    config: RetrievalConfig | TextConfig | SequencesConfig,
    work: Path,
    beam_args: list[str] | None,
    console: Console,
    make: Callable[[str, str, str], dict[str, Any]],
) -> Path:
    """The directory of what a job makes of a dataset, which is prepared first if need be.

    Args:
        make: the dataset's directory, the one to make and the dataset's key -> the manifest.
    """
    data, folder = work / config.data.name, work / config.name
    key = data_digest(prepare(config.data, data, beam_args, console))
    expected = {"format": FORMAT, "config_digest": digest(config), "data": key}
    with alone(work, console):
        found = read_manifest(folder / "manifest.json") or {}
        if expected.items() <= found.items():
            console.print(f"[bold]{what}[/] is done: {folder}")
            return folder
        console.print(f"[bold]{what}[/] {config.name} -> {folder}")
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        start = time.perf_counter()
        manifest = make(str(data), str(folder), key)
    rows = sum(counts["rows"] for counts in manifest["splits"].values())
    seconds = time.perf_counter() - start
    console.print(f"{rows:,} rows; {seconds:.0f} s, {rows / seconds:,.0f} rows/s")
    return folder


@contextmanager
def _pieces_done(config: DataConfig, folder: Path, console: Console) -> Iterator[None]:
    """A progress bar fed by what the workers leave in the temporary folder, wherever they run."""
    from tfctr.data.sources import open_source

    pieces = len(open_source(config).events.pieces())
    done = threading.Event()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pieces cleaned, split, written", total=3 * pieces)

        def watch() -> None:
            while not done.wait(0.5):
                found = list(folder.parent.glob(f"{folder.name}.tmp-*"))
                if found:
                    names = {p.name for p in found[-1].glob("*/*")}  # a piece has the same in each
                    ends = (".feather", ".split", ".tfrecord", ".tfrecord.gz")
                    bar.update(task, completed=sum(name.endswith(ends) for name in names))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def predict_split(
    model: Any, data: Any, split: str, console: Console
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a model says of each row of a split, and of which segments the rows are.

    Rare users and items are the least frequent that together have `RARE` of the training rows.

    Returns:
        The columns `[N]` label, user_key (if the data has a user) and logit; and, bool `[N]`, the
        segments: rows of unseen and of rare users and items.
    """
    from tfctr.training import EVALUATION_BATCH, predict

    config = data.manifest["config"]
    keys = {side: config[side] for side in ("user", "item") if config[side]}
    kept = ["label"] + (["user_key"] if config["user"] else [])
    columns = data.columns(split, [*kept, *keys.values()])
    segments = {f"unseen_{side}s": columns[name] == OOV_ID for side, name in keys.items()}
    for side, name in keys.items():
        segments[f"rare_{side}s"] = np.isin(columns[name], _rare(data, name))
    batches = getattr(data, split)(EVALUATION_BATCH, features=model.reads)
    logits = predict(model, batches, split, console)
    return {name: columns[name] for name in kept} | {"logit": logits}, segments


def _rare(data: Any, name: str) -> np.ndarray:
    """The ids of a feature's rare tokens."""
    counts = np.bincount(data.columns("train", [name])[name])
    counts[:FIRST_TOKEN_ID] = 0
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    return order[np.cumsum(counts[order]) <= RARE * counts.sum()]
