"""The libraries that only language models need."""

from tfctr.config import ConfigError

try:
    import keras_hub
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save_file
except ModuleNotFoundError as error:
    raise ConfigError(
        f"language models need {error.name}, which is not installed: pip install 'tfctr[language]'"
    ) from None

__all__ = ["SafetensorError", "keras_hub", "safe_open", "save_file"]
