"""Base classes of models of clicks and of students, and their loss."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ClickModel": "click_model",
        "LogLoss": "losses",
        "SchemaModel": "schema_model",
        "Student": "student",
        "start_from": "transfer",
    },
)
