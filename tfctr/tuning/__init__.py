"""Hyperparameter search, by the validation measure of the run: `tfctr tune FILE`.

Each trial trains the run's model with other values, once for each seed. Test rows are never read.
"""

from tfctr.config import ConfigError

try:
    import optuna  # noqa: F401
except ModuleNotFoundError:
    raise ConfigError("`tfctr tune` needs optuna: pip install 'tfctr[tune]'") from None

from tfctr.tuning.config import Searched, TuneConfig
from tfctr.tuning.search import tune
from tfctr.tuning.space import Space, load_tune

__all__ = ["Searched", "Space", "TuneConfig", "load_tune", "tune"]
