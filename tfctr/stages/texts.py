"""Stages of language-model methods: texts of rows, encoders, pre-training."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from tfctr.config import digest
from tfctr.data.manifest import read_manifest
from tfctr.language.config import SmallEncoder, TextConfig, embedded_feature, embedded_text
from tfctr.stages.prepare import MANIFEST, Prepare, SideOutputs
from tfctr.stages.stage import Stage
from tfctr.stages.training import TrainingStage


class LearnVocabulary(Stage):
    """The tokenizer of a small encoder, and the untrained encoder: `untrained`, in
    `<work>/<text's name>-encoder`."""

    name = "vocabulary"

    def __init__(self, config: TextConfig, small: SmallEncoder, dataset: Prepare, work: Path):
        self.config = config
        self.small = small
        self.folder = work / f"{config.name}-encoder"
        self.path = self.folder / "untrained"
        self.reads = (dataset,)
        self.dataset = dataset

    @property
    def made_from(self) -> Any:
        return digest(self.config)

    def check(self) -> None:
        import tfctr.language.libraries  # noqa: F401  before the dataset is prepared

    def make(self, console: Console) -> dict[str, Any]:
        import keras

        from tfctr.data.dataset import Dataset
        from tfctr.language.libraries import keras_hub
        from tfctr.language.small_encoder import (
            create_small_encoder,
            describe,
            learn_vocabulary,
        )

        data, small, path = Dataset.open(self.dataset.path), self.small, str(self.path)
        vocabulary = learn_vocabulary(self.config, data, small.vocabulary_size)
        keras.utils.set_random_seed(small.training.seed)
        create_small_encoder(small, len(vocabulary)).backbone.save_to_preset(path)
        keras_hub.models.BertTokenizer(vocabulary, lowercase=True).save_to_preset(path)
        size = describe(len(vocabulary), small.vocabulary_size)
        console.print(f"[bold]vocabulary[/] {size} -> {path}", soft_wrap=True)
        return {"vocabulary_size": len(vocabulary)}


class Textify(SideOutputs):
    """The texts of each row in an encoder's tokens, by `beam_pipelines.textify`."""

    name = "textify"

    def __init__(self, config: TextConfig, dataset: Prepare, work: Path):
        small = config.encoder.trained
        self.vocabulary = LearnVocabulary(config, small, dataset, work) if small else None
        super().__init__(config, dataset, work, [self.vocabulary] if self.vocabulary else [])

    def write(self, beam_args: list[str] | None) -> dict[str, Any]:
        from beam_pipelines.textify import textify
        from tfctr.language.pretrained import locate

        encoder = self.vocabulary.path if self.vocabulary else locate(self.config.encoder)
        return textify(
            self.config, str(self.dataset.path), str(self.folder), beam_args, str(encoder)
        )

    def describe(self, split: str, counts: dict[str, Any]) -> str:
        return "\n".join(
            f"{split}, {text}: {found['tokens'] / counts['rows']:.1f} tokens a row, at "
            f"most {found['longest']}; {found['shortened']:,} texts without their "
            f"early events, {found['cut']:,} cut; {found['unknown_tokens']:,} unknown tokens"
            for text, found in counts["texts"].items()
        )

    def manifest(self) -> dict[str, Any]:
        """The manifest of the texts."""
        return read_manifest(self.manifest_path) or {}


class Embed(Stage):
    """Vectors of the texts of all items of a log, by `beam_pipelines.embed`.

    Args:
        config: of the texts.
        feature: whose tokens get vectors; None: the item of the data.
        text: the text's name; None: the only one of the item's features alone.
        dataset: the stage of the dataset, which only an encoder that is trained here needs.
        work: the folder of that encoder, and of the default `folder`.
        folder: of the vectors. Defaults to `<work>/<text's name>-vectors`.
    """

    name = "embed"
    manifest_name = MANIFEST
    is_data = True

    def __init__(
        self,
        config: TextConfig,
        feature: str | None,
        text: str | None,
        dataset: Prepare,
        work: Path,
        folder: Path | None = None,
    ) -> None:
        self.config = config
        self.feature = embedded_feature(config, feature).name
        self.text = embedded_text(config, text)
        self.beam_args = dataset.beam_args
        self.folder = self.path = folder or work / f"{config.name}-vectors"
        small = config.encoder.trained
        self.trained = TrainEncoder(small, Textify(config, dataset, work)) if small else None
        self.reads = (self.trained,) if self.trained else ()

    @property
    def encoder(self) -> str:
        """Its preset or folder."""
        from tfctr.language.pretrained import locate

        return str(self.trained.path) if self.trained else locate(self.config.encoder)

    @property
    def made_from(self) -> Any:
        from tfctr.data import files
        from tfctr.data.sources import open_source

        log = open_source(self.config.data).fingerprint()
        of_encoder = [] if self.trained else sorted(Path(self.encoder).rglob("*"))
        encoder = [files.fingerprint(str(path)) for path in of_encoder if path.is_file()]
        return [digest(self.config), self.feature, self.text, log, encoder]

    def make(self, console: Console) -> None:
        from beam_pipelines.embed import described, embed

        console.print(f"[bold]{self.name}[/] {self.config.name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        manifest = embed(
            self.config,
            str(self.folder),
            self.feature,
            self.text,
            self.key(),
            self.encoder,
            self.beam_args,
        )
        console.print(described(manifest), highlight=False, soft_wrap=True)


class TrainEncoder(TrainingStage):
    """A small encoder, trained to predict masked words of the texts: `trained`, in the folder of
    `untrained`."""

    name = "train"

    def __init__(self, small: SmallEncoder, texts: Textify):
        assert texts.vocabulary is not None
        self.small = small
        self.training = small.training
        self.texts = texts
        self.vocabulary = texts.vocabulary
        self.folder = texts.vocabulary.folder
        self.path = self.folder / "trained"
        self.reads = (texts,)

    @property
    def made_from(self) -> Any:
        return digest(self.small)

    def make(self, console: Console) -> None:
        from tfctr.data.dataset import Dataset
        from tfctr.language.create import create_masked_lm
        from tfctr.language.libraries import keras_hub
        from tfctr.language.pretrained import load_encoder, load_tokenizer
        from tfctr.training.masked_words import MaskedWordsObjective

        texts, untrained = self.texts, str(self.vocabulary.path)
        data = Dataset.open(texts.dataset.path, [texts.path])
        tokenizer = load_tokenizer(untrained)

        def create() -> Any:
            task = keras_hub.models.BertMaskedLM(load_encoder(untrained), preprocessor=None)
            return create_masked_lm(task, texts.config, data.schema, texts.manifest())

        def save(model: Any, path: str) -> None:
            task = keras_hub.models.BertMaskedLM(
                model.encoder.encoder,
                keras_hub.models.BertMaskedLMPreprocessor(tokenizer, self.small.max_tokens),
            )
            task.masked_lm_head.set_weights(model.lm_head.get_weights())
            task.save_to_preset(path)

        console.print(f"[bold]train[/] a small encoder -> {self.path}", soft_wrap=True)
        about = {"encoder": self.small.model_dump(mode="json", exclude={"training"})}
        self.train(
            create,
            data,
            about,
            console,
            save,
            objective=lambda model: MaskedWordsObjective(data, model.reads),
        )


class TextPretraining(TrainingStage):
    """`pretrained.keras`: the result of training a backbone together with a language model. Runs
    that differ only in their students share it: the folder is
    `<work>/<text's name>-<method's name>-<key>`.

    A subclass implements the model to train (`create`), its `objective`, and the part that is saved
    (`keep`).

    Args:
        config: of the method, with `text` and `pretraining`.
        texts: the stages of its texts, by role.
        run: the run with the backbone.
    """

    name = "train"
    of_student: ClassVar[Sequence[str]] = ()  # keys of the config that this stage does not read

    def __init__(self, config: Any, texts: Mapping[str, Any], run: Any) -> None:
        assert config.pretraining is not None
        self.config = config
        self.training = config.pretraining
        self.model = run.config.model
        self.texts = texts
        self.reads = tuple(texts.values())
        self.folder = run.work / f"{config.text.name}-{config.name}-{self.key()}"
        self.path = self.folder / "pretrained.keras"

    def create(self, data: Any) -> Any:
        """The untrained model; `data` is the dataset with its texts."""
        raise NotImplementedError

    def objective(self, data: Any, model: Any) -> Any:
        raise NotImplementedError

    def keep(self, model: Any) -> Any:
        """The part of the trained model that is saved."""
        raise NotImplementedError

    @property
    def made_from(self) -> Any:
        return [digest(self.config, without=["text", *self.of_student]), digest(self.model)]

    def make(self, console: Console) -> None:
        from tfctr.data.dataset import Dataset

        texts = self.texts["texts"]
        data = Dataset.open(texts.dataset.path, [texts.path])
        console.print(f"[bold]pretrain[/] {self.model.backbone} -> {self.path}", soft_wrap=True)
        self.train(
            lambda: self.create(data),
            data,
            {"framework": self.config.model_dump(mode="json", exclude={"text"})},
            console,
            save=lambda model, path: self.keep(model).save(path),
            objective=lambda model: self.objective(data, model),
        )

    def import_models(self) -> None:
        self.config.import_models()


def text_stages(config: TextConfig, run: Any) -> dict[str, Stage]:
    """The stages of a run's texts: "texts" and, if the encoder is trained here, "encoder"."""
    texts = Textify(config, run.dataset, run.work)
    small = config.encoder.trained
    return {"texts": texts} | ({"encoder": TrainEncoder(small, texts)} if small else {})


def encoder_of(stages: Mapping[str, Any]) -> str:
    """The preset or folder of the encoder of `text_stages`, which must be built."""
    from tfctr.language.pretrained import locate

    if "encoder" in stages:
        return str(stages["encoder"].path)
    return locate(stages["texts"].config.encoder)
