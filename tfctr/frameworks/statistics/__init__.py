"""Statistics of what similar users said of similar items, computed in the served student."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {"StatisticsStudent": "student", "UserStatistics": "user_statistics"},
)
