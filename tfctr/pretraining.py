"""What is trained before a student: knowledge bases, encoders, backbones beside an encoder.

Each is a stage of its own, in a folder with its artefact and its manifest.
"""

import logging
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import (
    ClickPrompt,
    Ctrl,
    KnowledgeConfig,
    RunConfig,
    Srp4ctr,
    TextConfig,
    digest,
)
from tfctr.data.manifest import DataError, read_manifest, write_manifest
from tfctr.stages import alone, is_done, train_stage


class KnowledgeRun:
    """What makes ROK's knowledge base: a teacher, its hints of all rows, and the imitation of them.

    In `folder`, `<work>/<its name>`, lies `knowledge.keras`; the hints lie in the teacher's folder.
    """

    def __init__(self, config: KnowledgeConfig, teacher: Any, work: Path, console: Console) -> None:
        self.config = config
        self.teacher = teacher  # a `tfctr.pipeline.Run`
        self.console = console
        self.folder = work / config.name

    def key(self) -> str:
        """Of all that the knowledge base is made from."""
        own = self.config.model_dump(mode="json", exclude={"name", "teacher"})
        return digest([own, self.teacher.train_key()])

    def hints(self) -> Path:
        """The directory of the teacher's hints, written if they are not there."""
        folder = self.teacher.folder / "hints"
        key = self.teacher.train_key()
        if is_done(folder / "manifest.json", key, folder):
            return folder
        from beam_pipelines.hints import write_hints

        model = self.teacher.train()
        assert self.config.teacher.similar is not None
        similar = self.teacher.work / self.config.teacher.similar.name
        with alone(self.teacher.folder, self.console):
            if is_done(folder / "manifest.json", key, folder):
                return folder  # another process has written them meanwhile
            self.console.print(f"[bold]hints[/] {self.config.teacher.name} -> {folder}")
            logging.getLogger("apache_beam").setLevel(logging.WARNING)
            write_hints(str(model), str(self.teacher.data_folder), str(similar), str(folder), key)
        return folder

    def train(self) -> Path:
        """The path of `knowledge.keras`."""
        path, key = self.folder / "knowledge.keras", self.key()
        if is_done(self.folder / "train.json", key, path):
            self.console.print(f"[bold]imitate[/] is done: {path}")
            return path
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.create import create_knowledge
        from tfctr.frameworks.rok import Imitating, Imitation

        config, hints = self.config, self.hints()
        data = Dataset.open(self.teacher.data_folder, [hints])
        described = (read_manifest(hints / "manifest.json") or {})["splits"][config.training.rows]

        def make() -> Any:
            return Imitation(
                create_knowledge(config, data.schema),
                described["mean"],
                described["std"],
                config.imitation,
                config.contrastive,
                config.clicks,
                config.mask_rate,
                config.temperature,
            )

        clicks_only = config.clicks > 0 and not config.imitation
        self.console.print(f"[bold]imitate[/] {config.teacher.name} -> {path}")
        return train_stage(
            make,
            data,
            config.training,
            path,
            key,
            {"knowledge": config.model_dump(mode="json", exclude={"teacher", "training"})},
            self.console,
            objective=None if clicks_only else lambda model: Imitating(data, model.reads),
            save=lambda model, path: model.knowledge.save(path),
        )


class EncoderRun:
    """The encoder of a text config: where it is, or how it is made of the dataset's own texts.

    One that is made lies in `folder`, `<work>/<the text's name>-encoder`: `untrained/`, with the
    vocabulary, and `trained/`.
    """

    def __init__(self, config: TextConfig, work: Path, console: Console) -> None:
        self.config = config
        self.work = work
        self.console = console
        self.folder = work / f"{config.name}-encoder"

    def tokenizer(self, data_key: Any) -> str:
        """The preset or folder of the tokenizer; its vocabulary is learned if it is not there."""
        small = self.config.encoder.trained
        if small is None:
            return locate_encoder(self.config)
        path = self.folder / "untrained"
        key = digest([data_key, self.config.model_dump(mode="json")])
        if is_done(self.folder / "vocabulary.json", key, path):
            return str(path)
        import keras
        import keras_hub

        from tfctr.data.dataset import Dataset
        from tfctr.language.small_encoder import create_masked_lm, learn_vocabulary

        data = Dataset.open(self.work / self.config.data.name)
        vocabulary = learn_vocabulary(self.config, data, small.vocabulary_size)
        keras.utils.set_random_seed(small.training.seed)
        model = create_masked_lm(small, len(vocabulary))
        model.backbone.save_to_preset(str(path))
        keras_hub.models.BertTokenizer(vocabulary, lowercase=True).save_to_preset(str(path))
        write_manifest(
            {"key": key, "vocabulary_size": len(vocabulary)}, str(self.folder / "vocabulary.json")
        )
        self.console.print(f"[bold]vocabulary[/] {len(vocabulary):,} word pieces -> {path}")
        return str(path)

    def train(self, data: Any, described: dict[str, Any]) -> str:
        """The preset or folder of the encoder; it is trained if it is to be, and was not.

        Args:
            data: with the texts beside it.
            described: the texts' manifest.
        """
        small = self.config.encoder.trained
        if small is None:
            return locate_encoder(self.config)
        path, key = self.folder / "trained", digest([described["config_digest"], described["data"]])
        if is_done(self.folder / "train.json", key, path):
            return str(path)
        import keras_hub

        from tfctr.frameworks import language
        from tfctr.language import load_encoder, load_tokenizer
        from tfctr.language.masked_lm import GuessingWords

        untrained = str(self.folder / "untrained")
        tokenizer = load_tokenizer(untrained)

        def make() -> Any:
            task = keras_hub.models.BertMaskedLM(load_encoder(untrained), preprocessor=None)
            return language.create_plain_masked_lm(task, self.config, data.schema, described)

        def save(model: Any, path: str) -> None:
            task = keras_hub.models.BertMaskedLM(
                model.encoder.encoder,
                keras_hub.models.BertMaskedLMPreprocessor(tokenizer, small.max_tokens),
            )
            task.masked_lm_head.set_weights(model.lm_head.get_weights())
            task.save_to_preset(path)

        self.console.print(f"[bold]train[/] a small encoder -> {path}")
        train_stage(
            make,
            data,
            small.training,
            path,
            key,
            {"encoder": small.model_dump(mode="json", exclude={"training"})},
            self.console,
            objective=lambda model: GuessingWords(data, model.reads),
            save=save,
        )
        return str(path)


class SequencePretraining:
    """What SRP4CTR trains before its student: an encoder of users' events.

    In `folder`, `<work>/<the encoder's name>`, lie `encoder.keras`, the encoder with the heads that
    guess, and `next_item.json`, how well it tells what comes next.
    """

    def __init__(
        self, config: RunConfig, work: Path, data_key: list[Any], console: Console
    ) -> None:
        assert isinstance(config.framework, Srp4ctr)
        self.config = config
        self.framework = config.framework
        self.encoder = config.framework.encoder
        self.work = work
        self.data_key = data_key
        self.console = console
        self.folder = work / self.encoder.name

    def key(self) -> str:
        """Of all that the encoder is made from."""
        return digest([*self.data_key, self.encoder.model_dump(mode="json")])

    def student_key(self) -> Any:
        """Of all that the student is made from, but for its own training."""
        around = self.framework.model_dump(mode="json", exclude={"encoder"})
        return [self.key(), around]

    @property
    def comes_before(self) -> bool:
        """Whether there is a stage before the student's."""
        return self.framework.pretrained

    def open_windows(self) -> Any:
        """The users' events.

        Raises:
            DataError: there are none as configured.
        """
        from tfctr.data.dataset import Dataset

        sequences = self.encoder.sequences
        folder = self.work / sequences.name
        found = read_manifest(folder / "manifest.json")
        if found is None or found["config_digest"] != digest(sequences):
            raise DataError(f"{folder}: no sequences as configured; run `tfctr prepare`")
        return Dataset.open(folder)

    def train(self) -> Path | None:
        """The path of `encoder.keras`; none if the student starts at random."""
        if not self.comes_before:
            return None
        path, key = self.folder / "encoder.keras", self.key()
        if is_done(self.folder / "train.json", key, path):
            self.console.print(f"[bold]pretrain[/] is done: {path}")
            return path
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.create import create_fg_bert
        from tfctr.frameworks.srp4ctr import GuessingParts

        windows = self.open_windows()
        schema = Dataset.open(self.work / self.config.data.name).schema
        self.console.print(f"[bold]pretrain[/] an encoder of events -> {path}")

        def save(model: Any, path: str) -> None:
            model.save(path, include_optimizer=False)
            self._measure(model, windows)

        return train_stage(
            lambda: create_fg_bert(self.encoder, schema, windows.schema),
            windows,
            self.encoder.training,
            path,
            key,
            {"encoder": self.encoder.model_dump(mode="json", exclude={"sequences", "training"})},
            self.console,
            objective=lambda model: GuessingParts(windows, model.reads),
            save=save,
        )

    def _measure(self, model: Any, windows: Any) -> None:
        """Writes how well the next value is told of each history that shares an item's feature."""
        from tfctr.frameworks.srp4ctr.next_item import next_item

        found = {part: next_item(model, windows, part) for part in model.encoder.behaviours.about}
        for part, measured in found.items():
            self.console.print(
                f"the next event's {part}: among the first 10 of {measured['hit_rate_10']:.3f} of "
                f"{measured['windows']:,.0f} windows, NDCG {measured['ndcg_10']:.3f}; among the "
                f"first 50 of {measured['hit_rate_50']:.3f}, NDCG {measured['ndcg_50']:.3f}"
            )
        write_manifest(found, str(self.folder / "next_item.json"))

    def student(self, pretrained: Path | None, data: Any) -> Any:
        """The model that clicks are learned by, its encoder as `pretrained` left it."""
        import keras

        from tfctr.frameworks.create import create_model

        model = create_model(self.config, data.schema)
        model.build()
        if pretrained is not None:
            model.start_from(keras.models.load_model(pretrained, compile=False).encoder)
        return model


def locate_encoder(config: TextConfig) -> str:
    from tfctr.language import locate

    return locate(config.encoder)


class TextPretraining:
    """What CTRL and ClickPrompt train before their student: its backbone, beside a language model.

    In `folder` lies `pretrained.keras`: CTRL's backbone, or ClickPrompt's with its encoder and what
    writes the prompts. Runs that differ in their students alone share it: the folder, `<work>/<the
    text's name>-<the framework's>-<key>`, is named by all that it is made from.
    """

    def __init__(
        self, config: RunConfig, work: Path, data_key: list[Any], console: Console
    ) -> None:
        assert isinstance(config.framework, Ctrl | ClickPrompt)
        self.config = config
        self.framework = config.framework
        self.work = work
        self.data_key = data_key
        self.console = console
        self.text_folder = work / self.framework.text.name
        self.folder = work / f"{self.framework.text.name}-{self.framework.name}-{self.key()}"

    def key(self) -> str:
        """Of all that the backbone is made from."""
        around = self.framework.model_dump(mode="json", exclude={"text", "serves_language_model"})
        text = digest(self.framework.text)
        return digest([*self.data_key, text, around, self.config.model.model_dump(mode="json")])

    def student_key(self) -> Any:
        """Of all that the student is made from, but for its own training."""
        if isinstance(self.framework, ClickPrompt):
            return [self.key(), self.framework.serves_language_model]
        return self.key()

    @property
    def comes_before(self) -> bool:
        """Whether there is a stage before the student's."""
        return self.framework.pretraining is not None

    @property
    def is_in_one_stage(self) -> bool:
        """Whether the student's own training aligns it, and is not preceded by one that does."""
        return isinstance(self.framework, Ctrl) and self.framework.pretraining is None

    @property
    def student_reads_texts(self) -> bool:
        """Whether the student's training does."""
        if isinstance(self.framework, ClickPrompt):
            return self.framework.serves_language_model
        return self.is_in_one_stage

    def open_data(self) -> Any:
        """The dataset with its texts beside it."""
        from tfctr.data.dataset import Dataset

        self.describe()
        return Dataset.open(self.work / self.config.data.name, [self.text_folder])

    def describe(self) -> dict[str, Any]:
        """The texts' manifest.

        Raises:
            DataError: there are no texts as configured.
        """
        found = read_manifest(self.text_folder / "manifest.json")
        if found is None or found["config_digest"] != digest(self.framework.text):
            raise DataError(f"{self.text_folder}: no texts as configured; run `tfctr prepare`")
        return found

    def train(self) -> Path | None:
        """The path of `pretrained.keras`; none if nothing is trained before."""
        training = self.framework.pretraining
        if training is None:
            return None
        path, key = self.folder / "pretrained.keras", self.key()
        if is_done(self.folder / "train.json", key, path):
            self.console.print(f"[bold]pretrain[/] is done: {path}")
            return path
        from tfctr.frameworks import language
        from tfctr.frameworks.ctrl import Aligning
        from tfctr.language.masked_lm import GuessingWords

        data = self.open_data()
        described, where = self.find_encoder(data)
        self.console.print(f"[bold]pretrain[/] {self.config.model.backbone} -> {path}")
        about = {"framework": self.framework.model_dump(mode="json", exclude={"text"})}
        framework = self.framework

        def make() -> Any:
            if isinstance(framework, Ctrl):
                return language.create_alignment(self.config, framework, data, described, where)
            return language.create_masked_lm(self.config, framework, data.schema, described, where)

        def objective(model: Any) -> Any:
            if isinstance(framework, Ctrl):
                return Aligning(data, training.batch_size, model.reads)
            return GuessingWords(data, model.reads)

        def save(model: Any, path: str) -> None:
            kept = model.backbone if isinstance(framework, Ctrl) else language.as_student(model)
            kept.save(path)

        return train_stage(
            make, data, training, path, key, about, self.console, objective=objective, save=save
        )

    def aligned_meanwhile(self, data: Any) -> Any:
        """The model that trains the student where there is one stage."""
        from tfctr.frameworks import language

        assert isinstance(self.framework, Ctrl)
        described, where = self.find_encoder(data)
        return language.create_alignment(self.config, self.framework, data, described, where)

    def student(self, pretrained: Path | None, data: Any) -> Any:
        """The model that clicks are learned by, as `pretrained` left it; its heads are new."""
        import keras

        from tfctr.frameworks import language
        from tfctr.frameworks.create import create_model
        from tfctr.frameworks.transfer import start_from

        found = keras.models.load_model(pretrained, compile=False) if pretrained else None
        if isinstance(self.framework, ClickPrompt):
            if self.framework.serves_language_model:
                described, where = self.find_encoder(data)
                model = language.create_student(
                    self.config, self.framework, data.schema, described, where
                )
                model.build()
                if found is not None:
                    language.continue_from(model, found)
                return model
            found = found.backbone if found is not None else None
        model = create_model(self.config, data.schema)
        model.build()
        if found is not None:
            start_from(model, found)
        return model

    def find_encoder(self, data: Any) -> tuple[dict[str, Any], str]:
        """The manifest of the texts beside `data`, and where their encoder is, which is trained if
        it is to be and was not."""
        described = self.describe()
        found = EncoderRun(self.framework.text, self.work, self.console).train(data, described)
        return described, found
