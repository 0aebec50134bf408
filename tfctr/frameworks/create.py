"""The untrained models that configs describe."""

from tfctr import backbones
from tfctr.backbones import Backbone
from tfctr.click_model import ClickModel
from tfctr.config import (
    BackboneConfig,
    ConfigError,
    KnowledgeConfig,
    Rok,
    RunConfig,
    SequenceEncoderConfig,
    Srp4ctr,
)
from tfctr.frameworks.rok import KnowledgeBase, RokStudent
from tfctr.frameworks.srp4ctr import FgBert, SequenceEncoder, Srp4ctrStudent
from tfctr.schema import History, Schema


def create_model(config: RunConfig, schema: Schema) -> ClickModel:
    """The model of a run.

    Args:
        config: of the run.
        schema: of its dataset, fitted.

    Raises:
        ConfigError: it reads similar rows that the config does not name, or does not read those
            that it names.
        ValueError: no such backbone, or it has no such argument.
    """
    backbone = create_backbone(config.model, schema)
    if backbone.reads_similar_rows != (config.similar is not None):
        needs = "needs" if backbone.reads_similar_rows else "does not read"
        raise ConfigError(
            f"{config.name}: the backbone {config.model.backbone} {needs} the rows that the key "
            "'similar' names, a retrieval config"
        )
    framework = config.framework
    if isinstance(framework, Rok):
        knowledge = create_knowledge(framework.knowledge, schema)
        return RokStudent(backbone, knowledge, framework.use, framework.tuned)
    if isinstance(framework, Srp4ctr):
        return Srp4ctrStudent(
            select(config, schema),
            backbone,
            create_sequence_encoder(framework.encoder, schema),
            framework.cross_attention,
            framework.num_queries,
            framework.num_query_blocks,
            framework.frozen,
        )
    return backbone  # CTRL's student is one, and ClickPrompt's without its language model


def create_backbone(config: BackboneConfig, schema: Schema) -> Backbone:
    """A backbone of the features that it reads; `schema` is the dataset's, fitted."""
    kept = schema.select(config.features) if config.features else schema
    return backbones.create(config.backbone, kept, **config.arguments)


def create_knowledge(config: KnowledgeConfig, schema: Schema) -> KnowledgeBase:
    """ROK's knowledge base, as large as what its teacher makes of similar rows."""
    teacher = create_model(config.teacher, schema)
    assert isinstance(teacher, backbones.RIM)
    return KnowledgeBase(
        schema.select([feature.name for feature in teacher.of_found]),
        teacher.num_aggregates,
        teacher.field_dim,
        config.embedding_dim,
        config.hidden_units,
        config.dropout,
    )


def create_sequence_encoder(config: SequenceEncoderConfig, schema: Schema) -> SequenceEncoder:
    """SRP4CTR's encoder of the histories that the config names. `schema` is the dataset's."""
    return SequenceEncoder(
        schema.select(_of_events(config, schema)),
        config.dim,
        config.num_layers,
        config.num_heads,
        config.dropout,
        name="encoder",
    )


def create_fg_bert(config: SequenceEncoderConfig, schema: Schema, windows: Schema) -> FgBert:
    """SRP4CTR's first stage. `schema` is the dataset's, `windows` that of its users' events."""
    return FgBert(
        windows.select(_of_events(config, windows)),
        create_sequence_encoder(config, schema),
        config.mask_rate,
        config.last_rate,
        config.sampled_tokens,
    )


def select(config: RunConfig, schema: Schema) -> Schema:
    """The features that the model of a run reads."""
    if not config.model.features:
        return schema
    encoder = config.sequence_encoder
    return schema.select(
        [*config.model.features, *(_of_events(encoder, schema) if encoder else ())]
    )


def _of_events(config: SequenceEncoderConfig, schema: Schema) -> list[str]:
    """The histories that an encoder reads, and the item features that these share."""
    known = [feature for feature in schema if isinstance(feature, History)]
    read = [f for f in known if config.histories is None or f.name in config.histories]
    items = {feature.name for feature in schema.side("item")}
    return [f.name for f in read] + sorted({str(f.shares) for f in read if f.shares in items})
