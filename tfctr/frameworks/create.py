"""The untrained models that configs describe."""

from tfctr import backbones
from tfctr.click_model import ClickModel
from tfctr.config import ConfigError, KnowledgeConfig, Rok, RunConfig
from tfctr.frameworks.rok import KnowledgeBase, RokStudent
from tfctr.schema import Schema


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
    backbone = backbones.create(
        config.model.backbone, select(config, schema), **config.model.arguments
    )
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
    return backbone  # CTRL's student is one, and ClickPrompt's without its language model


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


def select(config: RunConfig, schema: Schema) -> Schema:
    """The features that the model of a run reads."""
    return schema.select(config.model.features) if config.model.features else schema
