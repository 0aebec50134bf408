"""Creates the student that a run config describes, or only checks that it can be created."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfctr.config import ConfigError, DataConfig, RunConfig
from tfctr.config.method import Method
from tfctr.schema import TOKEN_KINDS, Numeric, Schema


def create_parts(
    config: RunConfig, schema: Schema, stages: Mapping[str, Mapping[str, Any]]
) -> tuple[Any, list[tuple[Method, Any]]]:
    """The student, and the models that each method wraps in turn; nothing is built yet.

    Args:
        config: of the run.
        schema: of its dataset, fitted.
        stages: those before the student's training, by method and role.

    Raises:
        ConfigError: the backbone reads side outputs that no method provides.
        ValueError: no such backbone, or it has no such argument; a method does not fit.
    """
    import_models(config.frameworks)
    model = config.model.create(schema)
    if model.reads_side_outputs and all(method.is_served for method in config.frameworks):
        raise ConfigError(
            f"the backbone {config.model.backbone} reads side outputs, which none "
            "of its frameworks provides"
        )
    return wrapped(model, config.frameworks, schema, stages)


def wrapped(
    model: Any,
    methods: Iterable[Method],
    schema: Schema,
    stages: Mapping[str, Mapping[str, Any]],
) -> tuple[Any, list[tuple[Method, Any]]]:
    """The student of all methods around `model`, and the model that each of them wraps in turn."""
    parts = []
    for method in methods:
        model = method.wrap(model, schema, stages.get(method.name, {}))
        parts.append((method, model))
    return model, parts


def parts_of(config: RunConfig, student: Any) -> list[tuple[Method, Any]]:
    """The models in a trained student of a run that its methods have wrapped, as `create_parts`
    gives those of a new one."""
    from tfctr.models.student import Student

    new, parts = create_parts(config, stand_in(config.data), {})
    places = {id(new): student}
    while isinstance(new, Student):
        new, student = new.backbone, student.backbone
        places[id(new)] = student
    return [(method, places[id(part)]) for method, part in parts]


def import_models(methods: Iterable[Method]) -> None:
    """Imports the classes of all parts of a student."""
    import tfctr.backbones  # noqa: F401

    for method in methods:
        method.import_models()


def create_model(config: RunConfig, schema: Schema) -> Any:
    """The untrained student of a run; see `create_parts`."""
    return create_parts(config, schema, {})[0]


def check_student(config: RunConfig, where: str) -> None:
    """Creates the student for empty vocabularies, as a check that needs no data.

    Args:
        config: of the run.
        where: what an error begins with.

    Raises:
        ConfigError: the config describes no model.
    """
    schema = stand_in(config.data)
    if all(method.takes_rows for method in config.frameworks):
        check_model(lambda: create_model(config, schema), where)
    else:  # the student also reads texts, whose manifest is not there yet
        import_models(config.frameworks)
        check_model(lambda: config.model.create(schema), where)


def check_model(create: Callable[[], Any], where: str) -> None:
    """Creates a model and builds it.

    Args:
        create: gives the model.
        where: what an error begins with.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        create().build()
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{where}{reason(error)}") from None


def stand_in(data: DataConfig) -> Schema:
    """The schema as if it were fitted."""
    measured: dict[str, dict[str, Any]] = {}
    for feature in data.feature_schema:
        if isinstance(feature, TOKEN_KINDS):
            measured[feature.name] = {"vocabulary_size": 3}
        elif isinstance(feature, Numeric):
            measured[feature.name] = {
                "mean": 0.0,
                "std": 1.0,
                "median": 0.0,
                "iqr": 1.0,
                "boundaries": (0.0,),
            }
    return data.feature_schema.fitted(measured)


def reason(error: Exception) -> str:
    """An error as one line, without the colours and the call's arguments that Keras adds."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    text = re.sub(r"\x1b\[\d+m", "", text).partition("Arguments received")[0]
    return " ".join(text.split())
